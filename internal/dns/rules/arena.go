package rules

import "dnsfleet/internal/dns/rules/question"

// A compiled rule is an entry: a header byte, what the rule is about, and its limits when it has any. Entries lie one
// behind the other in chunks without a pointer, and never move. A ref is the number of the chunk, counted from 1, and the
// place in it.
const (
	chunkBits = 16
	chunkSize = 1 << chunkBits
	refBits   = 40 // of a slot of a table; the rest holds a part of the hash
	refMask   = 1<<refBits - 1

	firstChunk = 4 << 10 // a small list takes little
)

// The header: two bits of scope, then flags.
const (
	scopeMask  = 3
	scopeTree  = 0 // the name and everything below it
	scopeBelow = 1 // only what is below the name
	scopeExact = 2 // only the name

	flagException = 1 << 2
	flagImportant = 1 << 3
	flagRewrite   = 1 << 4
	flagLimits    = 1 << 5 // limits follow
	flagAdblock   = 1 << 6 // how it was written; means nothing else
)

// arena holds entries.
type arena struct {
	chunks [][]byte
}

// add copies an entry.
func (a *arena) add(entry []byte) {
	n := len(a.chunks)
	if n == 0 || len(a.chunks[n-1])+len(entry) > cap(a.chunks[n-1]) {
		size := chunkSize
		if n == 0 {
			size = firstChunk
		}
		a.chunks = append(a.chunks, make([]byte, 0, max(size, len(entry))))
		n++
	}
	a.chunks[n-1] = append(a.chunks[n-1], entry...)
}

// clip gives back the free rest of the last chunk. What is added later goes into a new one.
func (a *arena) clip() {
	if n := len(a.chunks); n > 0 {
		last := &a.chunks[n-1]
		*last = append(make([]byte, 0, len(*last)), *last...)
	}
}

// entry is the entry of a ref, and what lies behind it.
func (a *arena) entry(ref uint64) []byte {
	return a.chunks[ref>>chunkBits-1][ref&(chunkSize-1):]
}

// each calls f with every entry.
func (a *arena) each(f func(ref uint64, entry []byte)) {
	for i, chunk := range a.chunks {
		for at := 0; at < len(chunk); {
			size := entrySize(chunk[at:])
			f(uint64(i+1)<<chunkBits|uint64(at), chunk[at:at+size])
			at += size
		}
	}
}

// subject is what the entry is about: a name as it travels, in lower case, or an address.
func subject(entry []byte) []byte { return entry[1:subjectEnd(entry)] }

func subjectEnd(entry []byte) int {
	if entry[1]&question.AddressMark != 0 {
		return 2 + int(entry[1]&^question.AddressMark)
	}
	end := 1
	for entry[end] != 0 {
		end += 1 + int(entry[end])
	}
	return end + 1
}

func entrySize(entry []byte) int {
	end := subjectEnd(entry)
	if entry[0]&flagLimits == 0 {
		return end
	}
	return end + limitsSize(entry[end:])
}
