package redis_test

import (
	"testing"

	"dnsfleet/internal/store/storetest"
	"dnsfleet/internal/store/storetest/redistest"
)

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, open(b, options(redistest.Start(b, "--appendfsync", "everysec").URL())))
}
