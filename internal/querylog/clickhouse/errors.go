package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"dnsfleet/internal/fleet"
)

// Codes of ClickHouse's exceptions.
const (
	codeNoSuchColumn    = 16
	codeUnknownColumn   = 47
	codeTableExists     = 57
	codeUnknownTable    = 60
	codeUnknownDatabase = 81
	codeTooManyRows     = 158
	codeTimeout         = 159
	codeTooSlow         = 160
)

// refusing are the codes of a server that does not let the user in.
var refusing = []int32{
	192, // UNKNOWN_USER
	193, // WRONG_PASSWORD
	194, // REQUIRED_PASSWORD
	516, // AUTHENTICATION_FAILED
}

// away are the codes of a server that cannot answer now and may do so later.
var away = []int32{
	codeTimeout,
	codeTooSlow,
	164, // READONLY
	202, // TOO_MANY_SIMULTANEOUS_QUERIES
	203, // NO_FREE_CONNECTION
	209, // SOCKET_TIMEOUT
	210, // NETWORK_ERROR
	236, // ABORTED
	241, // MEMORY_LIMIT_EXCEEDED
	242, // TABLE_IS_READ_ONLY
	243, // NOT_ENOUGH_SPACE
	252, // TOO_MANY_PARTS
	279, // ALL_CONNECTION_TRIES_FAILED
	285, // TOO_FEW_LIVE_REPLICAS
	319, // UNKNOWN_STATUS_OF_INSERT
	394, // QUERY_WAS_CANCELLED
	999, // KEEPER_EXCEPTION
}

func unavailable(op string, err error) error {
	return fmt.Errorf("%s: %w: %w", op, fleet.ErrUnavailable, err)
}

// translate says what a failure of op means to a caller: all that is no answer of the server is fleet.ErrUnavailable, and so
// is what the operator has to mend.
func (l *Log) translate(op string, err error) error {
	if err == nil {
		return nil
	}
	code := exceptionCode(err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, fleet.ErrUnavailable), errors.Is(err, fleet.ErrInvalid):
		return fmt.Errorf("%s: %w", op, err)
	case code == 0 || slices.Contains(away, code):
		return unavailable(op, err)
	case slices.Contains(refusing, code):
		return fmt.Errorf("%s: the server does not let user %q in, check user and password of the URL (code %d): %w", op,
			l.target.Auth.Username, code, fleet.ErrUnavailable)
	case l.opt.NoMigrate && (code == codeUnknownTable || code == codeUnknownColumn || code == codeNoSuchColumn):
		return fmt.Errorf("%s: the schema is not there or older than this release, run dnsfleet migrate: %w: %w", op, fleet.ErrUnavailable, err)
	case code == codeUnknownDatabase:
		return fmt.Errorf("%s: the server has no database %q: %w", op, l.target.Auth.Database, fleet.ErrUnavailable)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// readError is as translate, for what a reader may have asked too much of.
func (l *Log) readError(op string, err error) error {
	if err == nil {
		return nil
	}
	switch code := exceptionCode(err); {
	case code == codeTooManyRows:
		return fmt.Errorf("%s: that takes more than %d rows to read, ask for a shorter window: %w", op, l.maxRows, fleet.ErrInvalid)
	case code == codeTimeout, code == codeTooSlow, errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return unavailable(op+": there was no answer in time, a shorter window may get one", err)
	}
	return l.translate(op, err)
}

// exceptionCode is 0 for no error and for one that the server did not send.
func exceptionCode(err error) int32 {
	if err == nil {
		return 0
	}
	if e := (*ch.Exception)(nil); errors.As(err, &e) {
		return e.Code
	}
	// Over HTTP the code is in a header, which old servers do not send and proxies may not pass on.
	if found := codeOfAnswer.FindStringSubmatch(err.Error()); found != nil {
		code, _ := strconv.ParseInt(found[1], 10, 32)
		return int32(code)
	}
	return 0
}

var codeOfAnswer = regexp.MustCompile(`\[HTTP \d+\] response body: "Code: (\d+)`)
