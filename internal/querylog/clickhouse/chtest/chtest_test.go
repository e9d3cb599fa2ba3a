package chtest_test

import (
	"testing"

	"dnsfleet/internal/querylog/clickhouse/chtest"
)

func TestAKilledEngineComesBackWithItsDataAtTheSameAddress(t *testing.T) {
	s := chtest.Start(t)
	s.Exec("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
	s.Exec("INSERT INTO t VALUES (1), (2)")
	address := s.Addr()
	s.Kill()
	s.Restart()
	if got := s.Addr(); got != address {
		t.Errorf("address: got %s, want %s", got, address)
	}
	if got := s.Value("SELECT count() FROM t"); got != "2" {
		t.Errorf("rows: got %s, want 2", got)
	}
	if got := s.Value("SELECT version()"); got < "26.7" {
		t.Errorf("version: got %s, want 26.7", got)
	}
}
