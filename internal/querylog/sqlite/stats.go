package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"io/fs"
	"os"
	"time"

	"dnsfleet/internal/fleet"
)

// Stats tell how large a log is.
type Stats struct {
	Rows   uint64    // events in it; of its oldest minute some may be gone already
	Bytes  int64     // on disk, side files and free pages included
	Oldest time.Time // when the oldest event happened, UTC; zero when there is none
}

// Stats tell how large the log is. They read sums, not events, so they cost the same however many events there are.
func (l *Log) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	for _, side := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(l.path + side)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Stats{}, l.fail("stats", err)
		}
		if err == nil {
			s.Bytes += info.Size()
		}
	}
	err := l.read(ctx, "stats", func(c *conn) error {
		id, found, err := c.number(ctx, "SELECT min(id) FROM events")
		if err != nil || !found {
			return err
		}
		oldest := id >> idBits
		s.Oldest = time.UnixMilli(oldest).UTC()
		first := floor(oldest, minute*1000)
		hours := floor(first+hour*1000-1, hour*1000)
		for size, span := range map[int64][2]int64{minute: {first, hours}, hour: {hours, maxMS}} {
			err := c.query(ctx, "SELECT outcomes FROM rollups WHERE size = ? AND start >= ? AND start < ?",
				[]any{size, span[0] / 1000, span[1] / 1000}, func(row []driver.Value) error {
					var o fleet.Outcomes
					b, _ := row[0].([]byte)
					if err := readOutcomes(b, &o); err != nil {
						return err
					}
					s.Rows += o.Total()
					return nil
				})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return s, err
}
