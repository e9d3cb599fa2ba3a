//go:build !linux

package loop

import "context"

// Loop can start nothing on this system.
type Loop struct{}

// New makes a Loop.
func New(Options) *Loop { return new(Loop) }

// Run waits for the end of ctx.
func (*Loop) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Start reports that it has not started anything.
func (*Loop) Start(Query) bool { return false }

// Running reports that nothing can be started.
func (*Loop) Running() bool { return false }
