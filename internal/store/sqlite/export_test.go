package sqlite

import (
	"context"
	"fmt"
)

// LimitPages lets the file grow no further than n pages, or what it has: a disk that is full.
func (s *Store) LimitPages(ctx context.Context, n int) error {
	_, err := s.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n))
	return err
}
