package main

import (
	"context"
	"errors"
	"sync"
)

// task is background work that ends, and returns nil, when its context does.
type task func(ctx context.Context) error

// runStages runs all tasks until ctx ends or one of them fails. Then it ends them stage by stage, each only when the
// stage before has ended: so the last answers are still counted, the last counts still pushed, and the last push still
// received. It returns what went wrong.
func runStages(ctx context.Context, stages ...[]task) error {
	failed, fail := context.WithCancel(ctx)
	defer fail()
	var (
		mu   sync.Mutex // guards errs
		errs []error
	)
	ends := make([]func(), len(stages))
	for i, stage := range stages {
		stageCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		var running sync.WaitGroup
		for _, run := range stage {
			running.Go(func() {
				err := run(stageCtx)
				if err == nil && stageCtx.Err() == nil {
					err = errors.New("a part of the program ended by itself")
				}
				if err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					fail()
				}
			})
		}
		ends[i] = func() {
			cancel()
			running.Wait()
		}
	}
	<-failed.Done()
	for _, end := range ends {
		end()
	}
	return errors.Join(errs...)
}
