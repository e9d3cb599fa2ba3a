package breakdown

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// question is one question in the two forms in which it can be put.
type question[T any] struct {
	filter  fleet.QueryFilter
	log     func(context.Context, querylog.Reader) (T, error)
	reports func(context.Context, *reports) (T, error) // nil: slices cannot answer it
}

// ask puts a question to the log where that has the events of all members that are asked for, and to the slices of all
// members where it has not, or is away. What slices cannot tell is asked of the log in any case.
func ask[T any](ctx context.Context, b *Breakdown, q question[T]) (answer T, about fleet.QueryAnswer, err error) {
	members, unlogged := b.wanted(q.filter)
	var gap *fleet.QueryGap
	switch {
	case b.o.Reader == nil && q.reports == nil:
		return answer, b.aboutNothing(q.filter), errNeedsLog(q.filter)
	case b.o.Reader == nil:
	case len(unlogged) > 0 && q.reports != nil:
	default:
		about = b.aboutLog(q.filter, unlogged)
		answer, err = withTimeout(ctx, b, q.log)
		if err == nil || q.reports == nil || !errors.Is(err, fleet.ErrUnavailable) {
			return answer, about, err
		}
		b.o.Log.WarnContext(ctx, "query log does not answer, its question goes to reports", "err", err)
		gap = &fleet.QueryGap{Reason: reasonOf(err)}
	}
	r := b.newReports(q.filter, members)
	if answer, err = q.reports(ctx, r); err != nil {
		var none T
		return none, r.about(), fmt.Errorf("ask reports: %w", err)
	}
	about = r.about()
	if gap != nil {
		about.Missing = append([]fleet.QueryGap{*gap}, about.Missing...)
	}
	return answer, about, nil
}

// withTimeout asks the log and translates what goes wrong: all that is not a wrong question, or the caller who has left, is
// fleet.ErrUnavailable.
func withTimeout[T any](ctx context.Context, b *Breakdown, ask func(context.Context, querylog.Reader) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, b.o.LogTimeout)
	defer cancel()
	answer, err := ask(limited, b.o.Reader)
	if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%w: no answer within %s", fleet.ErrUnavailable, b.o.LogTimeout)
	}
	return answer, unavailable(ctx, err)
}

func unavailable(ctx context.Context, err error) error {
	switch {
	case err == nil || errors.Is(err, fleet.ErrInvalid):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("ask query log: %w", ctx.Err())
	case errors.Is(err, fleet.ErrUnavailable):
		return fmt.Errorf("ask query log: %w", err)
	}
	return fmt.Errorf("ask query log: %w: %w", fleet.ErrUnavailable, err)
}

// reasonOf says in one line why the log is not there.
func reasonOf(err error) string {
	text := err.Error()
	for _, known := range []string{"ask query log: ", fleet.ErrUnavailable.Error() + ": "} {
		text = strings.ReplaceAll(text, known, "")
	}
	text = strings.Join(strings.Fields(text), " ")
	const most = 200
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return "query log unavailable: " + text
}

// errNeedsLog names the filters for which there would have to be a log.
func errNeedsLog(f fleet.QueryFilter) error {
	var by []string
	for _, filter := range []struct {
		name string
		set  bool
	}{
		{"domain", f.Domain != ""},
		{"client", f.Client != ""},
		{"outcome", len(f.Outcomes) > 0},
		{"qtype", f.QType != ""},
		{"upstream", f.Upstream != ""},
	} {
		if filter.set {
			by = append(by, filter.name)
		}
	}
	return fmt.Errorf("%w: the query log is off, and reports cannot be filtered like this by %s", fleet.ErrInvalid, strings.Join(by, " and "))
}

// aboutLog is what an answer of the log stands on.
func (b *Breakdown) aboutLog(f fleet.QueryFilter, unlogged []Member) fleet.QueryAnswer {
	about := fleet.QueryAnswer{Enabled: true, Source: b.o.Reader.Source(), From: f.From.UTC(), To: f.To.UTC(), Missing: []fleet.QueryGap{}}
	if b.o.Retention > 0 {
		if oldest := b.o.Now().Add(-b.o.Retention).UTC(); f.From.Before(oldest.Add(-time.Second)) {
			about.From = oldest
			if about.To.Before(oldest) {
				about.From = about.To
			}
			about.Missing = append(about.Missing, fleet.QueryGap{Reason: "the query log keeps queries for " + lasting(b.o.Retention)})
		}
	}
	for _, m := range unlogged {
		about.Missing = append(about.Missing, fleet.QueryGap{InstanceID: m.ID, Reason: whereTo(m)})
	}
	return about
}

// aboutNothing is what there is to say where only a log could answer, and there is none.
func (b *Breakdown) aboutNothing(f fleet.QueryFilter) fleet.QueryAnswer {
	about := fleet.QueryAnswer{
		Source: sourceReports, From: f.From.UTC(), To: f.To.UTC(),
		Missing: []fleet.QueryGap{{Reason: "the query log is off"}},
	}
	_, unlogged := b.wanted(f)
	for _, m := range unlogged {
		if m.QueryLog != "" && m.QueryLog != logOff {
			about.Missing = append(about.Missing, fleet.QueryGap{InstanceID: m.ID, Reason: whereTo(m)})
		}
	}
	return about
}

func whereTo(m Member) string {
	if m.QueryLog == logOff {
		return "its log is off"
	}
	return "logs to " + m.QueryLog
}

func kindOf(queryLog string) string {
	kind, _, _ := strings.Cut(queryLog, ":")
	return kind
}

// lasting is a duration as people write it: 7d, 36h, 90m.
func lasting(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
