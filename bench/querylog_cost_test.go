package bench_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	engine "dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/recorder"
	"dnsfleet/internal/querylog/shipper"
	"dnsfleet/internal/querylog/spool"
	"dnsfleet/internal/querylog/sqlite"
	"dnsfleet/internal/stats"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

// What the clients of BenchmarkQueryLogCost ask, in each turn.
const (
	costRate    = 20_000 // queries/s
	costQueries = costRate / 2
	costTurns   = 31 // many and short, because whatever else the machine does changes by the second
	costNames   = 5000
	costClients = 100
)

// BenchmarkQueryLogCost is the CPU of the whole process that one query costs an instance which answers 20,000 a second over
// UDP, all from its cache, or by a rule: with counters alone, with the sketches that reports carry, and with each query log.
// Clients, and the primary that events are sent to, are another process. Nothing may be missing in a log afterwards.
func BenchmarkQueryLogCost(b *testing.B) {
	helper := startHelper(b)
	upstream := serveNames(b)
	cases := []*costCase{
		{name: "counters"},
		{name: "off: counters and sketches", sink: nowhereSink},
		{name: "sqlite", sink: sqliteSink},
		{name: "primary", sink: primarySink},
	}
	for _, c := range cases {
		c.primary = helper.primary
		c.start(b, upstream)
		helper.load(b, c, costNames, 10_000) // every name once, so that it is in the cache
		helper.load(b, c, costQueries, costRate)
	}
	for b.Loop() {
		for turn := range costTurns {
			for i := range cases { // whoever comes first is another one each turn
				c := cases[(turn+i)%len(cases)]
				cpu, _ := measure(costQueries, func(n int) {
					helper.load(b, c, n, costRate)
					c.flush(b)
				})
				c.cpu = append(c.cpu, cpu)
			}
		}
	}
	var table strings.Builder
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "query log\tµs CPU/query\tmore than counters\tmore than off (middle half of turns)\trows missing\tunanswered\t")
	counters, off := cases[0].cpu, cases[1].cpu
	for _, c := range cases {
		added, logging := median(minus(c.cpu, counters)), minus(c.cpu, off)
		slices.Sort(logging)
		missing := c.missing(b)
		queries := c.counters.Counters().Outcomes.Total()
		fmt.Fprintf(out, "%s\t%.2f\t%.2f\t%.2f (%.2f to %.2f)\t%d of %d\t%d\t\n", c.name, median(slices.Clone(c.cpu)), added,
			median(logging), logging[len(logging)/4], logging[len(logging)*3/4], missing, queries, c.sent-c.answered)
		if missing != 0 {
			b.Errorf("%s: %d of %d events are missing: %+v", c.name, missing, queries, c.recorder.Stats())
		}
		if word, _, _ := strings.Cut(c.name, ":"); c.sink != nil {
			b.ReportMetric(added, word+"-cpu-µs/query")
		}
	}
	check(b, out.Flush())
	b.ReportMetric(0, "ns/op")
	b.Logf("%d queries/s, medians of %d turns, differences turn by turn:\n%s", costRate, len(counters), table.String())
}

func minus(a, b []float64) []float64 {
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	return d
}

// costCase is an instance with one way to keep its events.
type costCase struct {
	name     string
	sink     func(b *testing.B, c *costCase) querylog.Sink // nil: there is not even a recorder
	primary  string                                        // URL of a primary
	addr     string
	counters *stats.Counters
	recorder *recorder.Recorder // nil like sink
	stored   func() (uint64, error)

	sent, answered uint64
	cpu            []float64
}

// Record counts and records as the program does.
func (c *costCase) Record(lane int, e *fleet.QueryEvent) {
	c.counters.Record(lane, e.Outcome, e.Duration)
	if c.recorder != nil {
		c.recorder.Record(lane, e)
	}
}

// start serves until the benchmark ends.
func (c *costCase) start(b *testing.B, upstream string) {
	b.Helper()
	counters, err := stats.New(stats.Options{})
	check(b, err)
	c.counters = counters
	ctx, stop := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	b.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			b.Error(err)
		}
	})
	if c.sink != nil {
		c.recorder = recorder.New(recorder.Options{
			InstanceID: "box1", BootID: counters.BootID(), Sink: c.sink(b, c), Lend: true, Observe: counters.Observe,
		})
		g.Go(func() error { return c.recorder.Run(ctx) })
	}
	server, err := engine.New(engine.Options{Listen: []string{"127.0.0.1:0"}, Recorder: c, Exchanges: counters})
	check(b, err)
	check(b, server.Bind(b.Context()))
	c.addr = server.Addrs()[0]
	policy, err := fleet.ParsePolicy(fmt.Appendf(nil, "upstreams: [{address: %q}]\ndeny: [ads.example]\n", upstream))
	check(b, err)
	_, err = server.Apply(b.Context(), fleet.NewPolicyDoc(policy, 1, time.Now()))
	check(b, err)
	g.Go(func() error { return server.Run(ctx) })
}

// flush waits until all that was recorded is stored.
func (c *costCase) flush(b *testing.B) {
	b.Helper()
	if c.recorder == nil {
		return
	}
	for c.recorder.Stats().Waiting() > 0 { // more than once where the machine is too busy to answer in time
		c.recorder.Flush(b.Context())
	}
}

// missing is how many of the queries that were counted are not stored.
func (c *costCase) missing(b *testing.B) int64 {
	b.Helper()
	if c.stored == nil {
		return 0
	}
	stored, err := c.stored()
	check(b, err)
	return int64(c.counters.Counters().Outcomes.Total()) - int64(stored)
}

// nowhere is what a recorder hands its events when there is no log.
type nowhere struct{}

func (nowhere) Write(context.Context, querylog.Batch) error { return nil }

func nowhereSink(*testing.B, *costCase) querylog.Sink { return nowhere{} }

func withSpool(b *testing.B, sink querylog.Sink, codec *batch.Codec) querylog.Sink {
	b.Helper()
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(b.TempDir(), "spool")})
	check(b, err)
	b.Cleanup(func() { sp.Close() })
	return shipper.New(shipper.Options{Sink: sink, Codec: codec, Spool: sp, Timeout: time.Minute})
}

func newCodec(b *testing.B) *batch.Codec {
	b.Helper()
	codec, err := batch.NewCodec()
	check(b, err)
	return codec
}

func sqliteSink(b *testing.B, c *costCase) querylog.Sink {
	b.Helper()
	log, err := sqlite.Open(b.Context(), sqlite.Options{Path: filepath.Join(b.TempDir(), "querylog.db"), Retention: 168 * time.Hour})
	check(b, err)
	b.Cleanup(func() { log.Close() })
	c.stored = func() (uint64, error) {
		s, err := log.Summary(b.Context(), fleet.QueryFilter{QType: "A"}, false)
		return s.Total, err
	}
	return withSpool(b, log, newCodec(b))
}

// eventSender is the sync API as a sink.
type eventSender struct {
	*replica.EventSender
	codec *batch.Codec
}

func (s eventSender) Write(ctx context.Context, b querylog.Batch) error {
	body, err := s.codec.Encode(b)
	if err != nil {
		return err
	}
	return s.Send(ctx, body)
}

func primarySink(b *testing.B, c *costCase) querylog.Sink {
	b.Helper()
	client, err := replica.NewClient(replica.ClientOptions{PrimaryURLs: []string{c.primary}, Token: "token", InstanceID: "box1"})
	check(b, err)
	c.stored = func() (uint64, error) {
		answer, err := fetch(b.Context(), c.primary+"/count")
		if err != nil {
			return 0, err
		}
		var n uint64
		err = json.Unmarshal(answer, &n)
		return n, err
	}
	codec := newCodec(b)
	return withSpool(b, eventSender{replica.NewEventSender(replica.EventSenderOptions{Client: client}), codec}, codec)
}

// serveNames is an upstream that has an address for every name.
func serveNames(b *testing.B) string {
	b.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(b, err)
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		reply.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 86_400}, A: net.IPv4(192, 0, 2, 1)}}
		w.WriteMsg(reply)
	})}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	<-started
	b.Cleanup(func() {
		server.Shutdown() //nolint:errcheck // it ends anyway
		<-done
	})
	return "udp://" + conn.LocalAddr().String()
}

// helperVariable makes this binary the process of clients and primary.
const helperVariable = "DNSFLEET_BENCH_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) != "" {
		if err := help(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper is the process of clients and primary.
type helper struct {
	primary string // its URL
	in      io.Writer
	out     *json.Decoder
}

// order is n queries to an address, that many a second; answered says what came of it.
type order struct {
	Addr    string
	N, Rate int
}

type answered struct{ Sent, Answered int }

func startHelper(b *testing.B) *helper {
	b.Helper()
	self, err := os.Executable()
	check(b, err)
	cmd := exec.CommandContext(b.Context(), self)
	cmd.Env = append(os.Environ(), helperVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(b, err)
	out, err := cmd.StdoutPipe()
	check(b, err)
	check(b, cmd.Start())
	b.Cleanup(func() {
		in.Close()
		cmd.Wait() //nolint:errcheck // the context may have ended it
	})
	h := &helper{in: in, out: json.NewDecoder(bufio.NewReader(out))}
	check(b, h.out.Decode(&h.primary))
	return h
}

func (h *helper) load(b *testing.B, c *costCase, n, rate int) {
	b.Helper()
	check(b, json.NewEncoder(h.in).Encode(order{c.addr, n, rate}))
	var a answered
	check(b, h.out.Decode(&a))
	c.sent += uint64(a.Sent)
	c.answered += uint64(a.Answered)
}

// help is what the helper does until its standard input ends.
func help() error {
	codec, err := batch.NewCodec()
	if err != nil {
		return err
	}
	var events atomic.Uint64
	primary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != syncapi.PathEvents {
			fmt.Fprint(w, events.Load())
			return
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			var b querylog.Batch
			b, err = codec.Decode(body)
			events.Add(uint64(len(b.Events)))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(syncapi.EventsReply{OK: true, Stored: true, QueryLog: "sqlite"}) //nolint:errcheck // the sender tells
	}))
	defer primary.Close()
	out, in := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	if err := out.Encode(primary.URL); err != nil {
		return err
	}
	asked := newClients()
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return nil // the benchmark is over
		}
		a, err := asked.ask(o)
		if err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// clients ask for names, some often and most seldom; one in five is blocked.
type clients struct {
	questions [][]byte
	zipf      *rand.Zipf
}

func newClients() *clients {
	rng := rand.New(rand.NewPCG(8, 8))
	c := &clients{zipf: rand.NewZipf(rng, 1.1, 3, costNames-1)}
	for i := range costNames {
		zone := "example.com"
		if i%5 == 4 {
			zone = "ads.example"
		}
		wire, err := new(dns.Msg).SetQuestion(fmt.Sprintf("host%d.domain%d.%s.", i, i%300, zone), dns.TypeA).Pack()
		if err != nil {
			panic(err) // cannot be: the names are well-formed
		}
		c.questions = append(c.questions, wire)
	}
	rng.Shuffle(costNames, func(i, j int) { c.questions[i], c.questions[j] = c.questions[j], c.questions[i] })
	return c
}

// ask sends the queries evenly from as many addresses as there are clients, and waits a second for late answers. The
// first it ever sends to an address are each name once.
func (c *clients) ask(o order) (answered, error) {
	var got atomic.Int64
	var conns []*net.UDPConn
	var readers sync.WaitGroup
	server, err := net.ResolveUDPAddr("udp", o.Addr)
	if err != nil {
		return answered{}, err
	}
	for i := range costClients {
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}, server)
		if err != nil {
			return answered{}, err
		}
		conns = append(conns, conn)
		readers.Go(func() {
			buffer := make([]byte, 512)
			for {
				if _, err := conn.Read(buffer); err != nil {
					return
				}
				got.Add(1)
			}
		})
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for sent := 0; sent < o.N; {
		<-tick.C
		for due := min(o.N, int(time.Since(began).Seconds()*float64(o.Rate))); sent < due; sent++ {
			question := c.questions[c.zipf.Uint64()]
			if o.N == costNames {
				question = c.questions[sent]
			}
			if _, err := conns[sent%len(conns)].Write(question); err != nil {
				return answered{}, err
			}
		}
	}
	for end := time.Now().Add(time.Second); got.Load() < int64(o.N) && time.Now().Before(end); {
		<-tick.C
	}
	for _, conn := range conns {
		conn.Close()
	}
	readers.Wait()
	return answered{o.N, int(got.Load())}, nil
}
