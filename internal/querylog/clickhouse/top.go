package clickhouse

import (
	"context"
	"fmt"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"dnsfleet/internal/fleet"
)

// maxLimit bounds the length of a top list and of a page.
const maxLimit = 10_000

// TopDomains are the names most asked for, counted exactly. See querylog.Reader.
func (l *Log) TopDomains(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, error) {
	return l.top(ctx, "read top domains", "qname", f, limit, byInstance)
}

// TopClients are the clients that asked most, counted exactly: by name, or by address where they have none. See
// querylog.Reader.
func (l *Log) TopClients(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, error) {
	return l.top(ctx, "read top clients", client, f, limit, byInstance)
}

// top counts a key, which is a constant of this package.
func (l *Log) top(ctx context.Context, op, key string, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, error) {
	top := fleet.QueryTop{Items: []fleet.TopItem{}}
	if limit < 1 || limit > maxLimit {
		return top, fmt.Errorf("%s: limit %d is not from 1 to %d: %w", op, limit, maxLimit, fleet.ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, l.readTimeout)
	defer cancel()
	legacy, err := l.ready(ctx)
	if err != nil {
		return top, err
	}
	q := newQuestion(f, legacy)
	if q.from >= q.to {
		return top, nil
	}
	sql := "SELECT " + instance(byInstance) + ", name, count() AS n FROM (SELECT instance_id, " + key + " AS name FROM (" + q.rows() + "))" +
		" WHERE name != ''" + perGroup("name", byInstance) + " ORDER BY instance_id, n DESC, name LIMIT {limit:UInt32} BY instance_id"
	err = l.ask(ctx, op, sql, q.parameters(ch.Named("limit", uint32(limit))), func(rows driver.Rows) error {
		var id string
		var item fleet.TopItem
		if err := rows.Scan(&id, &item.Name, &item.Count); err != nil {
			return err
		}
		if id == "" {
			top.Items = append(top.Items, item)
			return nil
		}
		if last := len(top.Groups) - 1; last < 0 || top.Groups[last].InstanceID != id {
			top.Groups = append(top.Groups, fleet.QueryTopGroup{InstanceID: id})
		}
		g := &top.Groups[len(top.Groups)-1]
		g.Items = append(g.Items, item)
		return nil
	})
	return top, err
}
