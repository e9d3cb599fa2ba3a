package clickhouse_test

import (
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/querylog/clickhouse"
)

func TestASchemaOfAClusterIsReplicatedAndDistributed(t *testing.T) {
	one, cluster := sql(t, ""), sql(t, "fleet-1")
	for _, want := range []string{
		"CREATE TABLE IF NOT EXISTS dns_queries_local ON CLUSTER 'fleet-1' (",
		"CREATE TABLE IF NOT EXISTS dns_queries_1m_local ON CLUSTER 'fleet-1' (",
		"ENGINE = ReplicatedMergeTree\n", "ENGINE = ReplicatedAggregatingMergeTree\n",
		"replicated_deduplication_window = 100000, replicated_deduplication_window_seconds = 604800;",
		"CREATE MATERIALIZED VIEW IF NOT EXISTS dns_queries_1m_mv ON CLUSTER 'fleet-1' TO dns_queries_1m_local AS", "FROM dns_queries_local\n",
		"CREATE TABLE IF NOT EXISTS dns_queries ON CLUSTER 'fleet-1' AS dns_queries_local\nENGINE = Distributed('fleet-1', currentDatabase(), dns_queries_local, cityHash64(instance_id));",
		"CREATE TABLE IF NOT EXISTS dns_queries_1m ON CLUSTER 'fleet-1' AS dns_queries_1m_local\nENGINE = Distributed('fleet-1', currentDatabase(), dns_queries_1m_local, cityHash64(instance_id));",
		"toIntervalSecond(7200)",
	} {
		if !strings.Contains(cluster, want) {
			t.Errorf("schema of a cluster: got\n%s\nwant in it: %s", cluster, want)
		}
	}
	for _, unwanted := range []string{"CLUSTER", "Replicated", "Distributed", "_local", "{{"} {
		if strings.Contains(one, unwanted) {
			t.Errorf("schema of one server: got\n%s\nwant no %s in it", one, unwanted)
		}
	}
	if strings.Contains(cluster, "non_replicated") || strings.Count(one, "non_replicated_deduplication_window = 100000;") != 2 {
		t.Error("each table wants its own kind of deduplication window")
	}
}

func sql(t *testing.T, cluster string) string {
	t.Helper()
	text, err := clickhouse.Schema(clickhouse.Options{Cluster: cluster, Retention: 2 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func FuzzCursor(f *testing.F) {
	f.Add("x")
	f.Add("eyJ0IjoxLCJpIjoiYm94MSIsImgiOjIsIm4iOjF9")
	f.Fuzz(func(t *testing.T, text string) {
		again, ok := clickhouse.CursorRoundTrip(text)
		if !ok {
			return
		}
		if twice, ok := clickhouse.CursorRoundTrip(again); !ok || twice != again {
			t.Errorf("cursor %q became %q, and that %q, want no further change", text, again, twice)
		}
	})
}
