package clickhouse

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/pressly/goose/v3"

	"dnsfleet/migrations"
)

// Migrate brings the schema up to date: it sets the table of an older resolver aside, runs the migrations that are missing,
// and makes the tables keep what Retention says. It may be run again, and by several processes at once.
func (l *Log) Migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	if err := l.checkVersion(ctx); err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return l.translate("lock query log's schema", err)
	}
	defer unlock()
	if err := l.setLegacyAside(ctx); err != nil {
		return l.translate("set older queries aside", err)
	}
	files, err := fs.Sub(migrations.ClickHouse, "clickhouse")
	if err != nil {
		return err
	}
	db := ch.OpenDB(l.target)
	defer func() { _ = db.Close() }() // it has nothing to lose
	provider, err := goose.NewProvider(goose.DialectClickHouse, db, rendered{files, l.schema},
		goose.WithDisableGlobalRegistry(true), goose.WithTableName("dnsfleet_migrations"))
	if err != nil {
		return fmt.Errorf("migrate query log: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return l.translate("migrate query log", err)
	}
	return l.translate("set query log's retention", l.setRetention(ctx))
}

// Statements that are no migrations, to be filled in as they are.
const (
	renameLegacy = "RENAME TABLE dns_queries TO dns_queries_legacy{{.OnCluster}}"
	alterTTL     = "ALTER TABLE %s{{.Local}}{{.OnCluster}} MODIFY TTL %s + toIntervalSecond({{.RetentionSeconds}})"
)

// setLegacyAside renames a dns_queries that an older resolver made. Of two that do so at once, one finds it done.
func (l *Log) setLegacyAside(ctx context.Context) error {
	var old uint64
	err := l.conn.QueryRow(ctx, `SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'dns_queries' AND name NOT IN (
		SELECT table FROM system.columns WHERE database = currentDatabase() AND table = 'dns_queries' AND name = 'instance_id')`).Scan(&old)
	if err != nil || old == 0 {
		return err
	}
	err = l.exec(ctx, renameLegacy)
	if code := exceptionCode(err); code == codeUnknownTable || code == codeTableExists {
		// Somebody else was faster. A dns_queries without instance_id beside a dns_queries_legacy shows in the first insert.
		return nil
	}
	if err == nil {
		l.log.InfoContext(ctx, "older queries set aside", "table", "dns_queries_legacy")
	}
	return err
}

// setRetention changes the tables' TTL where it differs.
func (l *Log) setRetention(ctx context.Context) error {
	for table, from := range map[string]string{"dns_queries": "toDateTime(ts)", "dns_queries_1m": "minute"} {
		var engine string
		err := l.conn.QueryRow(ctx, "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
			ch.Named("table", table+l.schema.Local)).Scan(&engine)
		if err != nil {
			return err
		}
		if strings.Contains(engine, fmt.Sprintf("toIntervalSecond(%d)", l.schema.RetentionSeconds)) {
			continue
		}
		err = l.exec(ctx, fmt.Sprintf(alterTTL, table, from))
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) exec(ctx context.Context, text string) error {
	sql, err := l.schema.render(text)
	if err != nil {
		return err
	}
	return l.conn.Exec(ctx, sql)
}

const (
	lockPoll = 100 * time.Millisecond
	lockAge  = migrateTimeout + 30*time.Second // an older lock's owner has died
)

// lock waits until no other process migrates. ClickHouse has no locks, but making a table is atomic; its comment says when
// that was, by the server's clock. It keeps two from doing the same work; that nothing breaks when two do, in the end lies
// in the statements.
func (l *Log) lock(ctx context.Context) (unlock func(), err error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		var now int64
		if err := l.conn.QueryRow(ctx, "SELECT toInt64(toUnixTimestamp(now()))").Scan(&now); err != nil {
			return nil, err
		}
		err := l.conn.Exec(ctx, fmt.Sprintf("CREATE TABLE dnsfleet_migrating (at DateTime) ENGINE = MergeTree ORDER BY at COMMENT '%d'", now))
		if err == nil {
			return func() { l.unlock(ctx) }, nil
		}
		if exceptionCode(err) != codeTableExists {
			return nil, err
		}
		var dead uint64
		err = l.conn.QueryRow(ctx, `SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'dnsfleet_migrating'
			AND toInt64OrZero(comment) < {then:Int64}`, ch.Named("then", now-int64(lockAge/time.Second))).Scan(&dead)
		if err != nil {
			return nil, err
		}
		if dead > 0 {
			l.log.WarnContext(ctx, "lock of a migration that died is broken", "table", "dnsfleet_migrating")
			l.unlock(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *Log) unlock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	if err := l.conn.Exec(ctx, "DROP TABLE IF EXISTS dnsfleet_migrating"); err != nil {
		l.log.WarnContext(ctx, "unlock schema failed", "err", err)
	}
}
