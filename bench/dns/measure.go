package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// cost prints what a query of a workload costs each server, as the median of turns that take turns.
func (b *bench) cost(ctx context.Context, workload string, names ...string) error {
	file, more := b.file(workload), []string(nil)
	switch workload {
	case "dot":
		file, more = b.file("cached"), []string{"-m", "dot", "-c", "1", "-q", "100"}
	case "doh":
		file = ""
	}
	costs, rates, lost := map[string][]float64{}, map[string][]float64{}, map[string]int{}
	for round := range b.rounds + 1 {
		for _, name := range names {
			s, err := b.need(ctx, name)
			if err != nil {
				return err
			}
			if workload == "new" {
				if file, err = b.writeNew(); err != nil {
					return err
				}
			}
			cost, l, err := b.turnOf(ctx, s, file, more...)
			if err != nil {
				return err
			}
			if round == 0 {
				continue // fills caches
			}
			costs[name] = append(costs[name], cost)
			rates[name] = append(rates[name], l.qps)
			lost[name] += l.lost
		}
	}
	base := "dnsdist"
	if workload == "dot" || workload == "doh" {
		base = "unbound"
	}
	fmt.Printf("| %s | µs CPU a query | of %s | q/s | lost |\n|---|---|---|---|---|\n", workload, base)
	for _, name := range names {
		fmt.Printf("| %s | %.2f | %.2f | %.0f | %d |\n", name, median(costs[name]), median(costs[name])/median(costs[base]), median(rates[name]), lost[name])
	}
	fmt.Println()
	return nil
}

// log prints what the query log in SQLite adds, and whether it has every query.
func (b *bench) log(ctx context.Context) error {
	var off, on []float64
	completed := 0
	var logging *server
	for round := range b.rounds + 1 {
		for _, name := range []string{"dnsfleet", "dnsfleet-log"} {
			s, err := b.need(ctx, name)
			if err != nil {
				return err
			}
			cost, l, err := b.turnOf(ctx, s, b.file("zipf"), "-Q", "20000")
			if err != nil {
				return err
			}
			if name == "dnsfleet-log" {
				logging = s
				completed += l.completed
			}
			switch {
			case round == 0:
			case name == "dnsfleet":
				off = append(off, cost)
			default:
				on = append(on, cost)
			}
		}
	}
	rows, err := logging.rows(ctx, completed)
	if err != nil {
		return err
	}
	fmt.Printf("| zipf at 20,000 q/s | µs CPU a query |\n|---|---|\n| query log off | %.2f |\n| SQLite | %.2f |\n| added | %.2f |\n\n%d queries were answered, %d are in the log.\n\n",
		median(off), median(on), median(on)-median(off), completed, rows)
	return nil
}

// rows is how many queries the log has; it waits until it has as many as there must be, or for ten seconds.
func (s *server) rows(ctx context.Context, want int) (rows int, err error) {
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(200 * time.Millisecond) {
		var summary struct {
			Total int `json:"total"`
		}
		if err := s.get(ctx, "/api/queries/summary?window=1h", &summary); err != nil {
			return 0, err
		}
		if summary.Total >= want || time.Now().After(deadline) {
			return summary.Total, nil
		}
	}
}

// client asks dnsfleet's own APIs.
var client = http.Client{Timeout: 30 * time.Second}

func (s *server) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+s.web+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// latency prints how long an answer from the cache takes when there is little to do.
func (b *bench) latency(ctx context.Context) error {
	fmt.Print("| 2,000 q/s, cached | p50 µs | p99 µs |\n|---|---|---|\n")
	for _, name := range []string{"echo", "dnsfleet", "dnsdist", "unbound"} {
		s, err := b.need(ctx, name)
		if err != nil {
			return err
		}
		var p50, p99 []float64
		for round := range b.rounds + 1 {
			l, err := b.dnsperf(ctx, s, b.file("cached"), b.turn, "-Q", "2000", "-v")
			if err != nil {
				return err
			}
			if round > 0 {
				p50 = append(p50, float64(l.quantile(0.5).Microseconds()))
				p99 = append(p99, float64(l.quantile(0.99).Microseconds()))
			}
		}
		fmt.Printf("| %s | %.0f | %.0f |\n", name, median(p50), median(p99))
	}
	fmt.Println()
	return nil
}

// reload prints whether queries suffer while a list is read anew.
func (b *bench) reload(ctx context.Context) error {
	s, err := b.need(ctx, "dnsfleet")
	if err != nil {
		return err
	}
	calm, err := b.dnsperf(ctx, s, b.file("blocked"), b.turn, "-Q", "5000", "-v")
	if err != nil {
		return err
	}
	reloaded := make(chan error, 1)
	go func() {
		<-time.After(b.turn / 4)
		reloaded <- s.reloadLists(ctx)
	}()
	busy, err := b.dnsperf(ctx, s, b.file("blocked"), b.turn, "-Q", "5000", "-v")
	if err == nil {
		err = <-reloaded
	}
	if err != nil {
		return err
	}
	fmt.Printf("| blocked at 5,000 q/s | lost | p99 µs |\n|---|---|---|\n| calm | %d | %d |\n| a list of %d names reloads | %d | %d |\n\n", calm.lost,
		calm.quantile(0.99).Microseconds(), b.names, busy.lost, busy.quantile(0.99).Microseconds())
	return nil
}

// reloadLists changes the list, so that it is compiled anew, and has it fetched.
func (s *server) reloadLists(ctx context.Context) error {
	list := filepath.Join(s.cmd.Dir, "list.txt")
	f, err := os.OpenFile(list, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "added%d.example\n", time.Now().UnixNano())
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+s.control+"/blocklists/reload", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("reload: %s", resp.Status)
	}
	return nil
}

// start prints how long a restart takes until a listed name is blocked.
func (b *bench) start(ctx context.Context) error {
	var took []float64
	for range b.rounds {
		s, err := b.need(ctx, "dnsfleet")
		if err != nil {
			return err
		}
		s.stop()
		begun := time.Now()
		if err := s.launch(ctx, b.dir, []string{b.binary, "primary"}, s.cmd.Env); err != nil {
			return err
		}
		if err := s.await(listed(2)+".", 10*time.Second); err != nil {
			return err
		}
		took = append(took, float64(time.Since(begun).Milliseconds()))
	}
	fmt.Printf("From start to a blocked answer, with the list on disk: %.0f ms.\n\n", median(took))
	return nil
}

// memory prints what processes take right after their start.
func (b *bench) memory(ctx context.Context) error {
	b.stopAll()
	b.running = nil
	if err := os.RemoveAll(filepath.Join(b.dir, "dnsfleet")); err != nil { // with the cache of the runs before
		return err
	}
	fmt.Print("| memory after the start | RSS MB |\n|---|---|\n")
	for _, name := range []string{"dnsfleet", "dnsfleet-million", "dnsdist", "unbound", "dnsmasq"} {
		s, err := b.need(ctx, name)
		if err != nil {
			return err
		}
		<-time.After(2 * time.Second) // the collector gives back what compiling took
		mb, err := s.rss()
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.0f |\n", strings.Replace(name, "-million", ", 1,000,000 names", 1), mb)
	}
	fmt.Println()
	return nil
}

func machine() string {
	load, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(load), " ")
	model := ""
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores (%s), load %s at the start", runtime.NumCPU(), model, one)
}
