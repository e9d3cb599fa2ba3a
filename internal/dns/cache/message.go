package cache

import (
	"errors"
	"strings"

	"github.com/miekg/dns"
)

// Key is a Question with its name as text: in lower case with the final dot.
type Key struct {
	Name        string
	Type, Class uint16
	DO, CD      bool
}

// Hit is what Get found.
type Hit struct {
	Msg   *dns.Msg // the caller's own; TTLs as of now; nil on a miss
	State State
}

// Get is Lookup for those who work with messages of miekg/dns.
func (c *Cache) Get(k Key) Hit {
	hit := c.Peek(k)
	c.Count(0, hit.State)
	return hit
}

// Peek is Get without counting.
func (c *Cache) Peek(k Key) Hit {
	q, ok := k.question()
	if !ok {
		return Hit{}
	}
	now := c.now()
	e, state := c.Find(q, now)
	if e == nil {
		return Hit{}
	}
	msg := new(dns.Msg)
	if err := msg.Unpack(e.AppendAnswer(nil, now)); err != nil {
		return Hit{} // data of a record that only clients read
	}
	return Hit{msg, state}
}

// Put is Insert of a message of miekg/dns, which it does not change or keep.
func (c *Cache) Put(k Key, msg *dns.Msg) bool {
	q, ok := k.question()
	if !ok {
		return false
	}
	wire, _, err := pack(msg)
	if err != nil {
		return false
	}
	_, kept := c.Insert(q, wire, c.now())
	return kept
}

func (k Key) question() (Question, bool) {
	name, err := packName(k.Name)
	return Question{Name: name, Type: k.Type, DO: k.DO, CD: k.CD}, err == nil && k.Class == dns.ClassINET
}

// pack is a message in wire form, and the question it holds.
func pack(msg *dns.Msg) ([]byte, Question, error) {
	if len(msg.Question) != 1 {
		return nil, Question{}, errors.New("not one question")
	}
	name, err := packName(strings.ToLower(msg.Question[0].Name))
	if err != nil {
		return nil, Question{}, err
	}
	msg = msg.Copy()
	msg.Compress = true
	wire, err := msg.Pack()
	return wire, Question{Name: name, Type: msg.Question[0].Qtype}, err
}

func packName(text string) ([]byte, error) {
	wire := make([]byte, 256)
	end, err := dns.PackDomainName(text, wire, 0, nil, false)
	return wire[:max(end, 0)], err
}

// Name is the wire form of a name in lower case, as Question.Name has it.
func Name(text string) ([]byte, error) { return packName(strings.ToLower(dns.Fqdn(text))) }
