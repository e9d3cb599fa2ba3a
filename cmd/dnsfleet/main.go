// Dnsfleet is ad-blocking DNS for more than one box: one binary for every role.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// release is set by the linker; a plain `go build` says dev.
var release = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "dnsfleet:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

const usage = `dnsfleet: ad-blocking DNS for more than one box

  dnsfleet demo      a primary and three replicas in one process, with traffic; needs nothing
  dnsfleet primary   an instance that owns the policy and shows the fleet   [--check]
  dnsfleet replica   an instance that follows a fleet's primaries           [--check]
  dnsfleet token     create, list, rotate or revoke the replicas' tokens
  dnsfleet migrate   bring the embedded store's schema up to date
  dnsfleet health    ask the instance of this environment whether it is well
  dnsfleet version   print the release

primary, replica, token, migrate and health are configured by environment alone; .env.example lists every variable.
`

// run is main without the process: it parses args, runs one command until it is done or ctx ends, and returns what
// went wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: name a command\n\n%s", errUsage, usage)
	}
	command, rest := args[0], args[1:]
	switch command {
	case "primary":
		return runPrimary(ctx, rest, stdout, stderr)
	case "replica":
		return runReplica(ctx, rest, stdout, stderr)
	case "demo":
		return runDemo(ctx, rest, stdout, stderr)
	case "token":
		return runToken(ctx, rest, stdout, stderr)
	case "migrate":
		return runMigrate(ctx, rest, stdout, stderr)
	case "health":
		return runHealth(ctx, rest, stdout, stderr)
	case "version", "--version":
		fmt.Fprintln(stdout, "dnsfleet", version())
		return nil
	case "help", "--help", "-h":
		fmt.Fprint(stdout, usage)
		return nil
	}
	return fmt.Errorf("%w: there is no command %q\n\n%s", errUsage, command, usage)
}

// version is the release, and for a development build the commit where Go recorded it.
func version() string {
	if release != "dev" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return release + "-" + s.Value[:12]
		}
	}
	return release
}

// parseFlags parses the arguments of a command that takes only the given flags and no further words.
func parseFlags(name string, args []string, stderr io.Writer, declare func(*flag.FlagSet)) error {
	flags := flag.NewFlagSet("dnsfleet "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	declare(flags)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: %s takes no %q", errUsage, name, flags.Arg(0))
	}
	return nil
}

// parseCheck parses the arguments of a role, which has the flag --check and no other.
func parseCheck(role string, args []string, stderr io.Writer) (check bool, err error) {
	err = parseFlags(role, args, stderr, func(f *flag.FlagSet) {
		f.BoolVar(&check, "check", false, "read and validate the configuration, print it without secrets, and exit")
	})
	return check, err
}
