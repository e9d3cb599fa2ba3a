package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
	"dnsfleet/internal/store/redis"
)

const tokenUsage = `dnsfleet token create --name NAME [--instance ID ... | --any] [--json]
dnsfleet token list [--json]
dnsfleet token rotate ID [--json]
dnsfleet token revoke ID [--json]`

// storeTimeout bounds what a command that only talks to the store may take.
const storeTimeout = 15 * time.Second

// runToken works on the tokens in the store of the environment, also while a primary runs on it.
func runToken(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: name what to do with tokens\n\n%s", errUsage, tokenUsage)
	}
	c := tokenCommand{out: stdout}
	var id string
	action, rest := args[0], args[1:]
	switch action {
	case "create", "list":
	case "rotate", "revoke":
		// The id may stand before or behind the flags.
		if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			id, rest = rest[0], rest[1:]
		} else if n := len(rest); n > 0 && !strings.HasPrefix(rest[n-1], "-") {
			id, rest = rest[n-1], rest[:n-1]
		}
		if id == "" {
			return fmt.Errorf("%w: token %s needs the id of a token", errUsage, action)
		}
	default:
		return fmt.Errorf("%w: tokens cannot be told to %q\n\n%s", errUsage, action, tokenUsage)
	}
	err := parseFlags("token "+action, rest, stderr, func(flags *flag.FlagSet) {
		flags.BoolVar(&c.json, "json", false, "print JSON")
		if action == "create" {
			flags.StringVar(&c.name, "name", "", "name that people read (required)")
			flags.BoolVar(&c.any, "any", false, "let the token speak for every instance that no other token has taken")
			flags.Func("instance", "instance id that the token may speak for; may be repeated", func(id string) error {
				if !fleet.ValidID(id) {
					return errors.New("must match [A-Za-z0-9._-]{1,64}")
				}
				c.instances = append(c.instances, id)
				return nil
			})
		}
	})
	if err != nil {
		return err
	}
	cfg, err := loadPrimary()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	log := newLogger(cfg.instanceConfig, stderr)
	redis.LogClient(log)
	if c.store, err = openStore(ctx, cfg, nil, log); err != nil {
		return err
	}
	switch action {
	case "create":
		err = c.create(ctx)
	case "list":
		err = c.list(ctx)
	case "rotate":
		err = c.rotate(ctx, id)
	case "revoke":
		err = c.revoke(ctx, id)
	}
	if errors.Is(err, fleet.ErrNotFound) {
		err = fmt.Errorf("there is no token %q; dnsfleet token list shows all", id)
	}
	return errors.Join(err, c.store.Close())
}

type tokenCommand struct {
	store     store.Store
	out       io.Writer
	json      bool
	name      string
	any       bool
	instances []string
}

// shownToken is what may be printed of a token.
type shownToken struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Secret    string     `json:"secret,omitempty"`
	Instances []string   `json:"instances,omitempty"`
	Any       bool       `json:"any,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

func (c *tokenCommand) create(ctx context.Context) error {
	if err := fleet.ValidName(c.name); err != nil {
		return fmt.Errorf("%w: --name must be 1 to 128 bytes of printable UTF-8", errUsage)
	}
	if c.any && len(c.instances) > 0 {
		return fmt.Errorf("%w: --any and --instance exclude each other", errUsage)
	}
	now, err := c.store.Now(ctx)
	if err != nil {
		return err
	}
	token, secret := fleet.NewToken(c.name, c.instances, c.any, now)
	if err := c.store.CreateToken(ctx, token); err != nil {
		return err
	}
	return c.showSecret(token.ID, token.Name, secret)
}

// showSecret prints a secret for the only time.
func (c *tokenCommand) showSecret(id, name, secret string) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(shownToken{ID: id, Name: name, Secret: secret})
	}
	_, err := fmt.Fprintf(c.out, `token %s (%s)

  DNSFLEET_SYNC_TOKEN=%s

This is the only time that it is shown. Give it to the replica with DNSFLEET_PRIMARY_URLS and start: dnsfleet replica
`, id, name, secret)
	return err
}

func (c *tokenCommand) list(ctx context.Context) error {
	tokens, err := c.store.Tokens(ctx)
	if err != nil {
		return err
	}
	if c.json {
		shown := []shownToken{}
		for _, t := range tokens {
			s := shownToken{ID: t.ID, Name: t.Name, Instances: t.Instances, Any: t.Any, CreatedAt: &t.CreatedAt}
			if t.Revoked() {
				s.RevokedAt = &t.RevokedAt
			}
			shown = append(shown, s)
		}
		return json.NewEncoder(c.out).Encode(shown)
	}
	if len(tokens) == 0 {
		_, err := fmt.Fprintln(c.out, "No token yet. Make one: dnsfleet token create --name NAME")
		return err
	}
	table := tabwriter.NewWriter(c.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tSPEAKS FOR\tCREATED\tSTATE")
	for _, t := range tokens {
		speaksFor, state := strings.Join(t.Instances, ","), "active"
		switch {
		case t.Any:
			speaksFor = "any instance"
		case speaksFor == "":
			speaksFor = "the first that uses it"
		}
		if t.Revoked() {
			state = "revoked " + t.RevokedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, speaksFor, t.CreatedAt.UTC().Format(time.RFC3339), state)
	}
	return table.Flush()
}

func (c *tokenCommand) rotate(ctx context.Context, id string) error {
	secret, err := c.store.RotateToken(ctx, id)
	if err != nil {
		return err
	}
	tokens, err := c.store.Tokens(ctx)
	if err != nil {
		return err
	}
	name := ""
	for _, t := range tokens {
		if t.ID == id {
			name = t.Name
		}
	}
	return c.showSecret(id, name, secret)
}

func (c *tokenCommand) revoke(ctx context.Context, id string) error {
	if err := c.store.RevokeToken(ctx, id); err != nil {
		return err
	}
	if c.json {
		return json.NewEncoder(c.out).Encode(struct {
			ID      string `json:"id"`
			Revoked bool   `json:"revoked"`
		}{id, true})
	}
	_, err := fmt.Fprintf(c.out, "token %s is revoked; who uses it is refused from now on\n", id)
	return err
}
