package syncapi

import "sync"

// policyFeed is the last policy hash that this primary heard of, and a channel that closes when there is another.
type policyFeed struct {
	mu      sync.Mutex // guards the following
	hash    string     // "" while there is no policy, or none was heard of
	sets    uint64
	changed chan struct{}
}

func newPolicyFeed() *policyFeed { return &policyFeed{changed: make(chan struct{})} }

// get returns the hash, and a channel that closes when it is no longer the hash.
func (f *policyFeed) get() (hash string, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hash, f.changed
}

func (f *policyFeed) set(hash string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replace(hash)
}

// version is to be taken before the store is read for observe.
func (f *policyFeed) version() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sets
}

// observe sets a hash that was read from the store, unless word of another one came during the read: that is newer.
func (f *policyFeed) observe(before uint64, hash string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sets == before {
		f.replace(hash)
	}
}

func (f *policyFeed) replace(hash string) {
	f.sets++
	if hash == f.hash {
		return
	}
	f.hash = hash
	close(f.changed)
	f.changed = make(chan struct{})
}
