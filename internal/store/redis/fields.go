package redis

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"dnsfleet/internal/fleet"
)

// section is one field of a stats hash that is kept as JSON.
type section struct {
	name  string
	value any // pointer into a report
}

func sections(r *fleet.Report) []section {
	return []section{
		{"policy_unapplied", &r.PolicyUnapplied},
		{"blocklist", &r.Blocklist},
		{"cache", &r.Cache},
		{"cache_refresh", &r.CacheRefresh},
		{"response_distribution", &r.ResponseDistribution},
		{"response_time", &r.ResponseTime},
		{"upstreams", &r.Upstreams},
		{"acks", &r.Acks},
		{"last_hour", &r.LastHour},
	}
}

// encodeReport is a report without its slices as fields and values of a stats hash.
func encodeReport(r fleet.Report) ([]any, error) {
	fields := []any{
		"protocol", r.Protocol, "instance_id", r.InstanceID, "name", r.Name, "boot_id", r.BootID, "seq", r.Seq,
		"started_at", r.StartedAt.UTC().Format(time.RFC3339Nano), "sent_at", r.SentAt.UTC().Format(time.RFC3339Nano),
		"interval_seconds", strconv.FormatFloat(r.IntervalSeconds, 'g', -1, 64), "release", r.Release,
		"policy_revision", r.PolicyRevision, "policy_hash", r.PolicyHash, "control_url", r.ControlURL, "query_log", r.QueryLog,
	}
	if r.DNS != nil {
		fields = append(fields, "dns", strconv.FormatBool(*r.DNS))
	}
	if r.ClockSkew != nil {
		fields = append(fields, "clock_skew_seconds", strconv.FormatFloat(*r.ClockSkew, 'g', -1, 64))
	}
	for _, s := range sections(&r) {
		text, err := json.Marshal(s.value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", s.name, err)
		}
		fields = append(fields, s.name, text)
	}
	return fields, nil
}

// decodeReport reads what encodeReport wrote. Fields that it does not know, of another release, are left alone.
func decodeReport(fields map[string]string) (*fleet.Report, error) {
	p := parser{fields: fields}
	r := &fleet.Report{
		Protocol: int(p.int("protocol")), InstanceID: fields["instance_id"], Name: fields["name"], BootID: fields["boot_id"],
		StartedAt: p.time("started_at"), Seq: p.uint("seq"), SentAt: p.time("sent_at"), IntervalSeconds: p.float("interval_seconds"),
		Release: fields["release"], PolicyRevision: p.int("policy_revision"), PolicyHash: fields["policy_hash"], ControlURL: fields["control_url"],
		QueryLog: fields["query_log"],
	}
	if _, has := fields["dns"]; has {
		r.DNS = new(fields["dns"] == "true")
	}
	if _, has := fields["clock_skew_seconds"]; has {
		r.ClockSkew = new(p.float("clock_skew_seconds"))
	}
	for _, s := range sections(r) {
		if text, has := fields[s.name]; has {
			p.keep(s.name, json.Unmarshal([]byte(text), s.value))
		}
	}
	return r, p.err
}

// parser reads numbers and times out of a hash and keeps the first error. What is missing is zero.
type parser struct {
	fields map[string]string
	err    error
}

func (p *parser) keep(field string, err error) {
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("field %s: %w", field, err)
	}
}

func parse[T any](p *parser, field string, read func(string) (T, error)) (v T) {
	text := p.fields[field]
	if text == "" {
		return v
	}
	v, err := read(text)
	p.keep(field, err)
	return v
}

func (p *parser) int(field string) int64 {
	return parse(p, field, func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) })
}

func (p *parser) uint(field string) uint64 {
	return parse(p, field, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })
}

func (p *parser) float(field string) float64 {
	return parse(p, field, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
}

func (p *parser) time(field string) time.Time {
	return parse(p, field, func(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) })
}

func (p *parser) ms(field string) time.Time { return fromMS(p.int(field)) }
