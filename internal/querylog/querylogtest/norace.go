//go:build !race

package querylogtest

const defaultEvents = 100_000
