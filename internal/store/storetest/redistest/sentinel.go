package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Sentinels is a master with a replica, watched by sentinels that make the replica the master when the master is gone
// for half a second.
type Sentinels struct {
	Master    *Server
	Replica   *Server
	sentinels []*Server
}

// StartSentinels starts a master, a replica and n sentinels (1 to 3), and waits until all know each other.
func StartSentinels(t testing.TB, n int) *Sentinels {
	t.Helper()
	s := &Sentinels{Master: Start(t)}
	s.Replica = Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(s.Master.port))
	wait(t, "replica follows its master", startTimeout, func() bool {
		return strings.Contains(info(s.Replica.Addr(), "replication"), "master_link_status:up")
	})
	for range n {
		sentinel := newServer(t, "redis-sentinel")
		conf := fmt.Sprintf("bind 127.0.0.1\ndir %s\nlogfile redis.log\nsentinel monitor fleet 127.0.0.1 %d %d\n"+
			"sentinel down-after-milliseconds fleet 500\nsentinel failover-timeout fleet 3000\n", sentinel.dir, s.Master.port, n/2+1)
		if err := os.WriteFile(filepath.Join(sentinel.dir, "sentinel.conf"), []byte(conf), 0o600); err != nil {
			t.Fatalf("write sentinel.conf: %v", err)
		}
		sentinel.startAnywhere()
		s.sentinels = append(s.sentinels, sentinel)
	}
	wait(t, "sentinels know the replica and each other", startTimeout, func() bool {
		for _, sentinel := range s.sentinels {
			state := info(sentinel.Addr(), "sentinel")
			if !strings.Contains(state, "slaves=1") || !strings.Contains(state, fmt.Sprintf("sentinels=%d", n)) {
				return false
			}
		}
		return true
	})
	return s
}

// URL is the store URL of the set.
func (s *Sentinels) URL() string {
	var addrs []string
	for _, sentinel := range s.sentinels {
		addrs = append(addrs, sentinel.Addr())
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/fleet"
}

// WaitReplicated returns when the replica has all that the master has.
func (s *Sentinels) WaitReplicated() {
	s.Master.t.Helper()
	wait(s.Master.t, "replica catches up", startTimeout, func() bool {
		at := infoField(s.Master.Addr(), "master_repl_offset")
		return at != "" && infoField(s.Replica.Addr(), "slave_repl_offset") == at
	})
}

func infoField(addr, name string) string {
	for line := range strings.Lines(info(addr, "replication")) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), name+":"); found {
			return value
		}
	}
	return ""
}

func info(addr, section string) string {
	text, err := Command(addr, "INFO "+section)
	if err != nil {
		return ""
	}
	return text
}

// Cluster is three masters that share the slots.
type Cluster struct{ Nodes []*Server }

// StartCluster starts a cluster and waits until it serves.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	const slots, nodes = 16384, 3
	for i := range nodes {
		bus := FreePort(t)
		node := Start(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus), "--cluster-node-timeout", "2000")
		c.Nodes = append(c.Nodes, node)
		must(t, node.Addr(), fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*slots/nodes, (i+1)*slots/nodes-1))
		must(t, node.Addr(), fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1))
		if i > 0 {
			_, port, err := net.SplitHostPort(node.Addr())
			if err != nil {
				t.Fatal(err)
			}
			must(t, c.Nodes[0].Addr(), fmt.Sprintf("CLUSTER MEET 127.0.0.1 %s %d", port, bus))
		}
	}
	wait(t, "cluster is whole", startTimeout, func() bool {
		for _, node := range c.Nodes {
			state, err := Command(node.Addr(), "CLUSTER INFO")
			if err != nil || !strings.Contains(state, "cluster_state:ok") || !strings.Contains(state, "cluster_known_nodes:3") {
				return false
			}
		}
		return true
	})
	return c
}

func must(t testing.TB, addr, line string) {
	t.Helper()
	if reply, err := Command(addr, line); err != nil || !strings.HasPrefix(reply, "+OK") {
		t.Fatalf("%s: got %q, %v, want +OK", line, reply, err)
	}
}

// URL is the store URL of the cluster.
func (c *Cluster) URL() string {
	var addrs []string
	for _, node := range c.Nodes {
		addrs = append(addrs, node.Addr())
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}
