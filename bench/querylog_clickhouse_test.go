package bench_test

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/clickhouse"
	"dnsfleet/internal/querylog/clickhouse/chtest"
	"dnsfleet/internal/querylog/recorder"
	"dnsfleet/internal/querylog/shipper"
)

// BenchmarkQueryLogClickHouse takes events from Record to ClickHouse: recorder, batches, an insert for each. Bare is
// clickhouse-go alone, which appends the same rows and sends them in batches of as many, to a table of the same form with
// the same rollup behind it. Both speak the native protocol with an engine in another process, so that CPU is what the log
// costs an instance.
func BenchmarkQueryLogClickHouse(b *testing.B) {
	server := chtest.Start(b)
	events := queries(200_000)
	log, database := openClickHouse(b, server)
	check(b, log.Migrate(b.Context()))
	codec, err := batch.NewCodec()
	check(b, err)
	collect := recorder.New(recorder.Options{
		InstanceID: "box1", BootID: "boot1", Sink: shipper.New(shipper.Options{Sink: log, Codec: codec, Timeout: time.Minute}),
	})
	bare, bareDatabase := newBare(b, server)
	written, sent := 0, 0
	ours := func(n int) {
		written += n
		for i := range n {
			collect.Record(0, &events[i])
			if (i+1)%batch.MaxEvents == 0 {
				collect.Flush(b.Context())
			}
		}
		if s := collect.Stats(); s.Handed != uint64(written) {
			b.Fatalf("handed on: got %d events, want %d: %d dropped, %d refused", s.Handed, written, s.Dropped, s.Refused)
		}
	}
	compare(b, len(events), ours, func(n int) {
		for i := 0; i < n; i += batch.MaxEvents {
			sent++
			sendBare(b, bare, sent, events[i:i+batch.MaxEvents])
		}
	})
	for _, table := range []string{database + ".dns_queries", bareDatabase + ".dns_queries"} {
		if got := server.Value("SELECT count() FROM " + table); got != fmt.Sprint(written) {
			b.Errorf("rows of %s: got %s, want %d", table, got, written)
		}
	}
}

func openClickHouse(b *testing.B, server *chtest.Server) (log *clickhouse.Log, database string) {
	b.Helper()
	database, _, url := server.Database()
	log, err := clickhouse.Open(b.Context(), clickhouse.Options{URL: url})
	check(b, err)
	b.Cleanup(func() { log.Close() })
	return log, database
}

// newBare is a connection of the client library to a database with the log's tables.
func newBare(b *testing.B, server *chtest.Server) (conn driver.Conn, database string) {
	b.Helper()
	log, database := openClickHouse(b, server)
	check(b, log.Migrate(b.Context()))
	conn, err := ch.Open(&ch.Options{
		Addr: []string{server.NativeAddr()}, Auth: ch.Auth{Database: database}, Compression: &ch.Compression{Method: ch.CompressionLZ4},
	})
	check(b, err)
	b.Cleanup(func() { conn.Close() })
	return conn, database
}

// sendBare sends rows as the client library's documents show it. The number tells equal batches apart.
func sendBare(b *testing.B, conn driver.Conn, number int, events []fleet.QueryEvent) {
	b.Helper()
	ctx := ch.Context(b.Context(), ch.WithSettings(ch.Settings{"insert_deduplication_token": number}))
	insert, err := conn.PrepareBatch(ctx, "INSERT INTO dns_queries (ts, instance_id, client_ip, client_name, protocol, qname, qtype, "+
		"qclass, outcome, rcode, duration_ms, upstream_address, list)")
	check(b, err)
	for i := range events {
		e := &events[i]
		err := insert.Append(e.Time, "box1", e.Client.String(), e.ClientName, e.Protocol, e.QName, dns.TypeToString[e.QType],
			dns.ClassToString[e.QClass], e.Outcome.String(), dns.RcodeToString[e.RCode], float32(e.Duration.Seconds()*1000), e.Upstream, e.List)
		if err != nil {
			b.Fatal(err)
		}
	}
	check(b, insert.Send())
}

// queries are events of yesterday as 20,000 queries/s bring them: 300 clients, 20,000 names, some often and most seldom.
func queries(n int) []fleet.QueryEvent {
	rng := rand.New(rand.NewPCG(5, 6))
	zipf := rand.NewZipf(rng, 1.1, 3, 20_000)
	start := time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour)
	events := make([]fleet.QueryEvent, n)
	for i := range events {
		client := rng.IntN(300)
		e := fleet.QueryEvent{
			Time: start.Add(time.Duration(i) * 50 * time.Microsecond), Client: netip.AddrFrom4([4]byte{10, 0, byte(client / 250), byte(client % 250)}),
			Protocol: "udp", QName: fmt.Sprintf("host%d.domain%d.example.", zipf.Uint64(), rng.IntN(5)), QType: []uint16{1, 28, 65}[rng.IntN(3)],
			QClass: 1, Outcome: fleet.Cached, Duration: time.Duration(math.Exp(rng.NormFloat64()*0.5) * 80_000).Truncate(time.Microsecond),
		}
		if client%3 == 0 {
			e.ClientName = fmt.Sprintf("host%d.lan", client)
		}
		switch rng.IntN(5) {
		case 0:
			e.Outcome, e.List, e.RCode = fleet.Blocked, "ads", dns.RcodeNameError
		case 1:
			e.Outcome, e.Upstream = fleet.Upstream, []string{"udp://192.0.2.1:53", "tls://192.0.2.2:853"}[rng.IntN(2)]
		}
		events[i] = e
	}
	return events
}

var seriesRows = flag.Int("querylog.rows", 2_000_000, "how many rows BenchmarkQueryLogClickHouseSeries reads over")

// BenchmarkQueryLogClickHouseSeries is the time series of a day in steps of ten minutes, with quantiles, for every instance:
// as the log answers it, from the rollup, and from the rows themselves. What is read for it must not grow with the rows.
func BenchmarkQueryLogClickHouseSeries(b *testing.B) {
	for _, rows := range []int{*seriesRows / 10, *seriesRows} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			server := chtest.Start(b)
			log, database := openClickHouse(b, server)
			check(b, log.Migrate(b.Context()))
			from := time.Now().UTC().Truncate(24 * time.Hour).Add(-24 * time.Hour)
			began := time.Now()
			for part := 0; part < rows; part += partRows {
				server.Exec(fmt.Sprintf(madeUp, database, from.UnixMilli(), rows, part, min(partRows, rows-part)))
			}
			server.Exec("OPTIMIZE TABLE " + database + ".dns_queries_1m FINAL")
			b.Logf("made %d rows in %s", rows, time.Since(began).Round(time.Second))
			series := func() {
				answer, err := log.Series(b.Context(), fleet.QueryFilter{From: from, To: from.Add(24 * time.Hour)}, 10*time.Minute, true)
				check(b, err)
				total := uint64(0)
				for _, p := range answer.Points {
					total += p.Total
				}
				if total != uint64(rows) || len(answer.Groups) != 5 {
					b.Fatalf("series: got %d queries of %d instances, want %d of 5", total, len(answer.Groups), rows)
				}
			}
			fromRows := func() { server.Value(fmt.Sprintf(rawSeries, database)) }
			b.ResetTimer()
			for b.Loop() {
				var rollup, raw []float64
				for range rounds {
					rollup = append(rollup, milliseconds(series))
				}
				for range 3 {
					raw = append(raw, milliseconds(fromRows))
				}
				b.ReportMetric(median(rollup), "ms")
				b.ReportMetric(median(raw), "raw-ms")
			}
			b.ReportMetric(float64(server.RowsRead(series)), "rows-read")
			b.ReportMetric(float64(server.RowsRead(fromRows)), "raw-rows-read")
			b.ReportMetric(0, "ns/op") // of all rounds: says nothing
		})
	}
}

func milliseconds(f func()) float64 {
	began := time.Now()
	f()
	return float64(time.Since(began).Microseconds()) / 1000
}

// partRows is how many rows are made at a time.
const partRows = 10_000_000

// madeUp makes rows of a day in the order of time: five instances, all outcomes, two upstreams, 300 clients, 20,000 names.
const madeUp = `INSERT INTO %[1]s.dns_queries (ts, instance_id, client_ip, protocol, qname, qtype, qclass, outcome, rcode, duration_ms, upstream_address)
SELECT fromUnixTimestamp64Milli(toInt64(%[2]d + intDiv(number * 86400000, %[3]d)), 'UTC'), 'box' || toString(1 + cityHash64(number) %% 5),
	'10.0.0.' || toString(cityHash64(number, 1) %% 300), 'udp', 'host' || toString(cityHash64(number, 2) %% 20000) || '.example', 'A', 'IN',
	['blocked', 'cached', 'cached', 'cached', 'stale', 'upstream', 'local', 'servfail'][1 + cityHash64(number, 3) %% 8] AS o, 'NOERROR',
	toFloat32(exp(cityHash64(number, 4) %% 1000 / 150)), if(o IN ('upstream', 'servfail'), 'udp://192.0.2.' || toString(1 + cityHash64(number, 5) %% 2) || ':53', '')
FROM numbers(%[4]d, %[5]d)`

const rawSeries = `SELECT count() FROM (SELECT toStartOfInterval(ts, INTERVAL 10 MINUTE) AS step, instance_id, outcome, count(),
	quantilesDD(0.01, 0.5, 0.95, 0.99)(duration_ms) FROM %s.dns_queries GROUP BY step, instance_id, outcome)`
