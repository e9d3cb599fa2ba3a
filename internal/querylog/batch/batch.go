// Package batch says what a batch of query events may hold and turns batches into bytes and back. The bytes are the
// body of POST /sync/events and a record of the spool.
//
// They are one byte of version, then a zstd frame of: instance id, boot id, seq, number of events, time of the first,
// and the events. Numbers are varints and times are in microseconds, each but the first as what passed since the one
// before. A text or an address stands there once, where it first occurs; later it is the number of its first
// occurrence.
package batch

import (
	"strings"
	"time"
	"unicode/utf8"

	"dnsfleet/internal/fleet"
)

// Limits of a batch.
const (
	MaxEvents = 10_000
	MaxText   = 1024    // bytes of a name; the longest DNS name has 1,016 with all its bytes escaped
	MaxBytes  = 1 << 20 // of a whole batch before compression
	MaxPacked = 1 << 20 // of what Encode returns

	// maxRoom is what Cut lets the events of a batch take at most, so that ids and numbers find room below MaxBytes.
	maxRoom = 1<<20 - 4<<10
	// eventRoom bounds an event without its texts, which takes 54 bytes at most.
	eventRoom = 64
)

const (
	dayMicros = int64(24 * time.Hour / time.Microsecond)
	endMicros = 49_710 * dayMicros // 7 February 2106, the day in which ClickHouse's DateTime ends
	maxMicros = uint64(24 * time.Hour / time.Microsecond)
	maxRCode  = 1<<12 - 1 // RFC 6891, section 6.1.3
)

// Clean makes *e an event that a batch may hold: time in UTC from 1970 to 6 February 2106, which every sink can store, time
// and duration in whole microseconds, the client without a zone (which means something on one box only), texts of valid
// UTF-8 and at most MaxText bytes, a known outcome. An event that it has not changed but in precision is the rule.
func Clean(e *fleet.QueryEvent) {
	e.Time = time.UnixMicro(min(max(e.Time.UnixMicro(), 0), endMicros-1)).UTC()
	e.Duration = min(max(e.Duration, 0), 24*time.Hour).Truncate(time.Microsecond)
	if e.Client.Zone() != "" {
		e.Client = e.Client.WithZone("")
	}
	for _, text := range [...]*string{&e.ClientName, &e.Protocol, &e.QName, &e.Upstream, &e.List} {
		if !validText(*text) {
			*text = cleanText(*text)
		}
	}
	if int(e.Outcome) >= fleet.NumOutcomes {
		e.Outcome = fleet.Invalid
	}
	e.RCode = min(max(e.RCode, 0), maxRCode)
}

func validText(s string) bool { return len(s) <= MaxText && utf8.ValidString(s) }

func cleanText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	for len(s) > MaxText {
		_, size := utf8.DecodeLastRuneInString(s[:min(len(s), MaxText+utf8.UTFMax)])
		s = s[:min(len(s), MaxText+utf8.UTFMax)-size]
	}
	return s
}

// Cut is how many of the first events, which are clean and oldest first, may make a batch: all of one UTC day, and no
// more than fit. It is at least 1 unless there are none.
func Cut(events []fleet.QueryEvent) int {
	if len(events) == 0 {
		return 0
	}
	day := dayOf(events[0].Time.UnixMicro())
	room := 0
	for i := range events[:min(len(events), MaxEvents)] {
		e := &events[i]
		room += eventRoom + len(e.ClientName) + len(e.Protocol) + len(e.QName) + len(e.Upstream) + len(e.List)
		if room > maxRoom || dayOf(e.Time.UnixMicro()) != day {
			return i
		}
	}
	return min(len(events), MaxEvents)
}

func dayOf(micros int64) int64 { return micros / dayMicros }
