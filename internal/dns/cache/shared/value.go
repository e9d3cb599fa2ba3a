package shared

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/cache/answer"
	"dnsfleet/internal/fleet"
)

// A value is a version, the milliseconds it had to live when it was put, and the message. What is left of them tells its
// age, without a clock that instances would have to agree on.
const (
	version   = 1
	valueHead = 5
	// maxTTL bounds how long an answer is shared, and fits into the milliseconds of a value.
	maxTTL = 7 * 24 * time.Hour
)

// key is <prefix>:l1:<mark>:<type>:<flags>:<name>, where the flags are D and C for DO and CD.
func (c *Cache) key(q cache.Question) (string, bool) {
	name, end, err := dns.UnpackDomainName(q.Name, 0)
	if err != nil || end != len(q.Name) {
		return "", false
	}
	key := make([]byte, 0, len(c.opts.Prefix)+len(name)+64)
	key = append(append(append(key, c.opts.Prefix...), ":l1:"...), *c.mark.Load()...)
	key = append(strconv.AppendUint(append(key, ':'), uint64(q.Type), 10), ':')
	if q.DO {
		key = append(key, 'D')
	}
	if q.CD {
		key = append(key, 'C')
	}
	return string(append(append(key, ':'), name...)), true
}

// encode makes the value of an answer that may be shared.
func encode(q cache.Question, response []byte, ttl time.Duration) ([]byte, bool) {
	if ttl < time.Second {
		return nil, false
	}
	a, ok := read(q, response)
	if !ok {
		return nil, false
	}
	value := make([]byte, valueHead, valueHead+len(a.Wire))
	value[0] = version
	binary.BigEndian.PutUint32(value[1:], uint32(ttl/time.Millisecond))
	value = append(value, a.Wire...)
	header := a.Header(q.CD)
	copy(value[valueHead:], header[:])
	copy(value[valueHead+len(header):], q.Name)
	return value, true
}

// decode is the message of a value with ttl left, if it is one of ours for the question.
func decode(q cache.Question, value []byte, ttl time.Duration) ([]byte, bool) {
	if len(value) < valueHead || value[0] != version {
		return nil, false
	}
	age := time.Duration(binary.BigEndian.Uint32(value[1:]))*time.Millisecond - ttl
	a, ok := read(q, value[valueHead:])
	if !ok || ttl <= 0 || age < 0 || len(a.Wire) != len(value)-valueHead {
		return nil, false
	}
	header := a.Header(q.CD)
	copy(a.Wire, header[:])
	copy(a.Wire[len(header):], q.Name)
	seconds := uint32((age + time.Second - 1) / time.Second)
	for _, off := range a.TTLs {
		old := binary.BigEndian.Uint32(a.Wire[off:])
		binary.BigEndian.PutUint32(a.Wire[off:], answer.Aged(old, seconds))
	}
	return a.Wire, true
}

// read reads an answer that may be shared: one that the cache would keep, and no failure.
func read(q cache.Question, response []byte) (answer.Answer, bool) {
	a, err := answer.Read(response, q.Name, q.Type, nil)
	return a, err == nil && a.RCode != dns.RcodeServerFailure && a.Lifetime(&fleet.CachePolicy{}) > 0
}
