//go:build race

package querylogtest

// defaultEvents is fewer under the race detector, which makes a database in Go ten times as slow.
const defaultEvents = 3_000
