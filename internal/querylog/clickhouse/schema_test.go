package clickhouse_test

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/querylog/clickhouse"
	"dnsfleet/internal/querylog/clickhouse/chtest"
)

// No cluster runs in these tests: the library that they run on has neither Keeper nor ON CLUSTER. What a cluster is sent is
// held to a file that people have read, and its form to ClickHouse's own parser.
func TestASchemaOfAClusterIsReplicatedAndDistributed(t *testing.T) {
	const golden = "testdata/cluster.sql"
	got := sql(t, "fleet-1")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("schema of a cluster: got\n%s\nwant what %s has; go test -update writes it", got, golden)
	}
}

func TestASchemaOfOneServerKnowsOfNoCluster(t *testing.T) {
	one := sql(t, "")
	for _, unwanted := range []string{"CLUSTER", "Replicated", "Distributed", "_local", "{{"} {
		if strings.Contains(one, unwanted) {
			t.Errorf("schema of one server: got\n%s\nwant no %s in it", one, unwanted)
		}
	}
	if strings.Count(one, "non_replicated_deduplication_window = 100000;") != 2 {
		t.Error("each table wants its deduplication window")
	}
}

func TestClickHouseReadsEveryStatementOfTheSchema(t *testing.T) {
	t.Parallel()
	s := chtest.Start(t)
	statements := 0
	for _, cluster := range []string{"", "fleet-1"} {
		for statement := range strings.SplitSeq(sql(t, cluster), ";\n") {
			if statement = strings.TrimSpace(comment.ReplaceAllString(statement, "")); statement == "" {
				continue
			}
			statements++
			formatted := s.Value("SELECT formatQuerySingleLine('" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(statement) + "')")
			if cluster != "" && !strings.Contains(formatted, "ON CLUSTER `fleet-1`") {
				t.Errorf("got %s, want it on the cluster", formatted)
			}
		}
	}
	if statements != 6+8 {
		t.Errorf("statements: got %d, want 14", statements)
	}
}

var (
	update  = flag.Bool("update", false, "write the golden files again")
	comment = regexp.MustCompile(`(?m)^--.*$`)
)

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
