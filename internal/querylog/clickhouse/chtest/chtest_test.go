package chtest_test

import (
	"testing"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"dnsfleet/internal/querylog/clickhouse/chtest"
)

func TestAKilledEngineComesBackWithItsDataAtTheSameAddresses(t *testing.T) {
	s := chtest.Start(t)
	s.Exec("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
	s.Exec("INSERT INTO t VALUES (1), (2)")
	address, native := s.Addr(), s.NativeAddr()
	s.Kill()
	s.Restart()
	if s.Addr() != address || s.NativeAddr() != native {
		t.Errorf("addresses: got %s and %s, want %s and %s", s.Addr(), s.NativeAddr(), address, native)
	}
	if got := s.Value("SELECT count() FROM t"); got != "2" {
		t.Errorf("rows: got %s, want 2", got)
	}
	if got := s.Value("SELECT version()"); got < "26.7" {
		t.Errorf("version: got %s, want 26.7", got)
	}
}

func TestBothProtocolsCarryWhatTheClientSends(t *testing.T) {
	s := chtest.Start(t)
	s.Exec("CREATE TABLE t (at DateTime64(3, 'UTC'), name LowCardinality(String), n Float32) ENGINE = MergeTree ORDER BY at")
	for protocol, address := range map[ch.Protocol]string{ch.HTTP: s.Addr(), ch.Native: s.NativeAddr()} {
		for _, compression := range []ch.CompressionMethod{ch.CompressionNone, ch.CompressionLZ4} {
			conn, err := ch.Open(&ch.Options{Protocol: protocol, Addr: []string{address}, Compression: &ch.Compression{Method: compression}})
			if err != nil {
				t.Fatal(err)
			}
			s.Exec("TRUNCATE TABLE t")
			batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO t (at, name, n)")
			if err != nil {
				t.Fatalf("%s, %s: PrepareBatch: %v", protocol, compression, err)
			}
			for i := range 1000 {
				if err := batch.Append(int64(i), []string{"a", `o'b\x`}[i%2], float32(i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				t.Fatalf("%s, %s: Send: %v", protocol, compression, err)
			}
			var n, most uint64
			sql := "SELECT count(), toUInt64(max(n)) FROM t WHERE name = {name:String} AND n >= {from:Float32}"
			if err := conn.QueryRow(t.Context(), sql, ch.Named("name", `o'b\x`), ch.Named("from", 500)).Scan(&n, &most); err != nil || n != 250 || most != 999 {
				t.Errorf("%s, %s: got %d rows to %d, %v, want 250 to 999", protocol, compression, n, most, err)
			}
			if rows, err := conn.Query(t.Context(), "SELECT at FROM t WHERE n < 0"); err != nil || rows.Next() || rows.Close() != nil {
				t.Errorf("%s, %s: no rows: got one or %v", protocol, compression, err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
