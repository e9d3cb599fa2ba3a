package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"dnsfleet/internal/store"
	"dnsfleet/internal/webapi/signin"
)

// password tells the hash of the admin's password: that of the environment, or the one that the fleet keeps in its
// store, made where there is none.
type password struct {
	given  string
	store  store.Store
	notice io.Writer

	mu    sync.Mutex // guards the following
	known string
}

func newPassword(given string, s store.Store, notice io.Writer) *password {
	return &password{given: given, store: s, notice: notice}
}

// hash is the hash; an error means that the store cannot tell it now.
func (p *password) hash(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known != "" {
		return p.known, nil
	}
	var err error
	if p.given != "" {
		p.known, err = signin.HashPassword(p.given)
		return p.known, err
	}
	p.known, err = signin.FirstPassword(ctx, p.store, func(made string) {
		fmt.Fprintf(p.notice, "\n  The dashboard's password is: %s\n  It was made at this first start and is shown only now. DNSFLEET_ADMIN_PASSWORD sets another.\n\n", made)
	})
	return p.known, err
}

// make sees to it that there is a password from the start on, so that it is printed then and not at the first sign-in.
func (p *password) make(ctx context.Context) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, policyTimeout)
		_, err := p.hash(attempt)
		cancel()
		if err == nil {
			<-ctx.Done()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
