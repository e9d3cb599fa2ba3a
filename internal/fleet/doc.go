// Package fleet is the vocabulary of dnsfleet: what an instance reports of itself, what the store remembers of
// it, what the view shows of all of them, and how such things are merged. It does no input or output and imports
// no other package of the program, so that every other package can speak these words.
package fleet
