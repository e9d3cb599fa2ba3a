// Command engine answers ClickHouse's HTTP and native protocols on loopback addresses from an embedded ClickHouse
// (libchdb). It understands as much of the protocols as clickhouse-go speaks, and fails on demand. Only tests start it.
//
// It is a module of its own, so that the program's module does not depend on the engine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	chdb "github.com/chdb-io/chdb-go/chdb-purego"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "address of the HTTP listener")
	listenNative := flag.String("native", "127.0.0.1:0", "address of the native protocol's listener")
	dir := flag.String("dir", "", "folder of the data")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// Opened once and kept: the engine ends with its last connection.
	keep, err := chdb.NewConnectionFromConnString(*dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", *dir, err)
	}
	defer keep.Close()
	scratch, err := os.MkdirTemp(*dir, "inserts-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	var lc net.ListenConfig
	overHTTP, err := lc.Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	overTCP, err := lc.Listen(ctx, "tcp", *listenNative)
	if err != nil {
		return err
	}
	e := &engine{dir: *dir, scratch: scratch}
	server := &http.Server{Handler: web{e}.routes(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 2)
	go func() { served <- server.Serve(overHTTP) }()
	go func() { served <- native{e}.serve(ctx, overTCP) }()
	// The parent waits for this line.
	fmt.Fprintln(os.Stdout, "listening on", overHTTP.Addr(), overTCP.Addr())
	go func() {
		// Standard input ends with the parent: an engine never outlives its test.
		_, _ = os.Stdin.Read(make([]byte, 1))
		stop()
	}()
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	return errors.Join(err, server.Close(), overTCP.Close())
}
