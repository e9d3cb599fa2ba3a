package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// load is what a run of dnsperf came to.
type load struct {
	completed, lost int
	qps             float64
	latencies       []time.Duration // sorted; only of runs that were to tell
}

// dnsperf asks a server for a file's names for a time.
func (b *bench) dnsperf(ctx context.Context, s *server, file string, d time.Duration, more ...string) (load, error) {
	port := s.port
	args := []string{"-s", "127.0.0.1", "-d", file, "-l", strconv.FormatFloat(d.Seconds(), 'f', 1, 64)}
	switch {
	case len(more) > 1 && more[0] == "-m" && more[1] == "dot":
		port = s.dot
	}
	if !slices.Contains(more, "-c") {
		args = append(args, "-c", "8", "-q", "200")
	}
	args = append(append(args, "-p", port), more...)
	out, err := exec.CommandContext(ctx, "dnsperf", args...).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("dnsperf %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out[max(len(out)-300, 0):]))
	}
	var l load
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(line, "Queries completed:"):
			l.completed, err = strconv.Atoi(f[2])
		case strings.Contains(line, "Queries lost:"):
			l.lost, err = strconv.Atoi(f[2])
		case strings.Contains(line, "Queries per second:"):
			l.qps, err = strconv.ParseFloat(f[3], 64)
		case strings.HasPrefix(line, "> ") && len(f) >= 5: // of -v: > NOERROR name type seconds
			if seconds, e := strconv.ParseFloat(f[len(f)-1], 64); e == nil {
				l.latencies = append(l.latencies, time.Duration(seconds*float64(time.Second)))
			}
		}
		if err != nil {
			return load{}, fmt.Errorf("dnsperf said %q: %w", line, err)
		}
	}
	if l.completed == 0 {
		return load{}, fmt.Errorf("dnsperf completed no query with %s: %s", s.name, bytes.TrimSpace(out[max(len(out)-300, 0):]))
	}
	slices.Sort(l.latencies)
	return l, nil
}

// quantile is of sorted latencies; 0 for none.
func (l load) quantile(q float64) time.Duration {
	if len(l.latencies) == 0 {
		return 0
	}
	return l.latencies[min(int(q*float64(len(l.latencies))), len(l.latencies)-1)]
}

// turnOf is one turn of one server: processor time for each query in microseconds, and the load. No file means HTTPS.
func (b *bench) turnOf(ctx context.Context, s *server, file string, more ...string) (cost float64, l load, err error) {
	before, err := s.cpu()
	if err != nil {
		return 0, l, err
	}
	if file == "" {
		l, err = b.https(ctx, s)
	} else {
		l, err = b.dnsperf(ctx, s, file, b.turn, more...)
	}
	if err == nil && l.completed == 0 {
		err = fmt.Errorf("%s answered nothing", s.name)
	}
	if err != nil {
		return 0, l, err
	}
	after, err := s.cpu()
	return float64((after - before).Microseconds()) / float64(l.completed), l, err
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
