package sqlite_test

import (
	"path/filepath"
	"testing"

	"dnsfleet/internal/store/storetest"
)

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, open(b, filepath.Join(b.TempDir(), "store.db"), options()))
}
