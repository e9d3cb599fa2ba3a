// Package bench measures what the fleet costs a primary. Each benchmark does the same work twice in one run, once by
// dnsfleet and once by the bare parts it is built of, in turns, and reports the ratio: that holds on a noisy machine where
// a single figure does not. CPU is of the process that serves and asks; Redis' own is left out on both sides.
//
//	make bench
package bench
