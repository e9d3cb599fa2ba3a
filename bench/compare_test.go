package bench_test

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

// rounds is how often both sides take turns.
const rounds = 9

// compare runs ours and bare in turns, ops operations each time, and reports the medians: CPU and wall time per
// operation, and the ratio of CPU turn by turn.
func compare(b *testing.B, ops int, ours, bare func(n int)) {
	b.Helper()
	ours(ops) // warm up
	bare(ops)
	b.ResetTimer()
	for b.Loop() {
		var oursCPU, bareCPU, oursWall, bareWall, ratio []float64
		for range rounds {
			cpu, wall := measure(ops, ours)
			cpuBare, wallBare := measure(ops, bare)
			oursCPU, bareCPU = append(oursCPU, cpu), append(bareCPU, cpuBare)
			oursWall, bareWall = append(oursWall, wall), append(bareWall, wallBare)
			ratio = append(ratio, cpu/cpuBare)
		}
		b.ReportMetric(median(oursCPU), "cpu-µs/op")
		b.ReportMetric(median(bareCPU), "bare-cpu-µs/op")
		b.ReportMetric(median(ratio), "cpu-ratio")
		b.ReportMetric(1e6/median(oursWall), "op/s")
		b.ReportMetric(1e6/median(bareWall), "bare-op/s")
		b.ReportMetric(0, "ns/op") // of a whole comparison: says nothing
	}
}

// measure is the CPU and wall time of one operation in microseconds.
func measure(ops int, run func(n int)) (cpu, wall float64) {
	started, before := time.Now(), cpuTime()
	run(ops)
	return float64((cpuTime() - before).Microseconds()) / float64(ops), float64(time.Since(started).Microseconds()) / float64(ops)
}

// cpuTime is what this process has used, in user and kernel.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(xs []float64) float64 {
	slices.Sort(xs)
	return xs[len(xs)/2]
}
