package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite .env.example from the config structs")

func TestEnvExampleEqualsTheConfigStructs(t *testing.T) {
	path := filepath.Join("..", "..", ".env.example")
	var want bytes.Buffer
	writeEnvExample(&want)
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf(".env.example differs from the config structs; run: go test ./cmd/dnsfleet -run EnvExample -update\n got:\n%s\nwant:\n%s", got, want.Bytes())
	}
}

func TestAWrongValueNamesTheVariableTheValueAndWhatIsAllowed(t *testing.T) {
	cases := map[string]struct {
		name, value string
		want        []string
	}{
		"a duration without a unit":      {"DNSFLEET_STATS_INTERVAL", "10", []string{"DNSFLEET_STATS_INTERVAL", `"10"`, "duration"}},
		"a duration below its least":     {"DNSFLEET_STATS_TTL", "1s", []string{"DNSFLEET_STATS_TTL", "1s", "between 5s and 24h"}},
		"a word that is none of them":    {"DNSFLEET_HISTORY", "7d", []string{"DNSFLEET_HISTORY", `"7d"`, "off, 24h, 90d"}},
		"a listen address with no port":  {"DNSFLEET_DNS_LISTEN", "127.0.0.1", []string{"DNSFLEET_DNS_LISTEN", "127.0.0.1", "[host]:port"}},
		"a listen address with a name":   {"DNSFLEET_WEB_LISTEN", "example.com:80", []string{"DNSFLEET_WEB_LISTEN", "example.com:80", "IP address"}},
		"a prefix that is none":          {"DNSFLEET_ALLOW_CLIENTS", "10.0.0.0/8,lan", []string{"DNSFLEET_ALLOW_CLIENTS", "lan", "prefixes"}},
		"a bootstrap server with a name": {"DNSFLEET_BOOTSTRAP_DNS", "dns.example", []string{"DNSFLEET_BOOTSTRAP_DNS", "dns.example", "IP"}},
		"a secret file that is missing":  {"DNSFLEET_ADMIN_PASSWORD_FILE", "/does/not/exist", []string{"DNSFLEET_ADMIN_PASSWORD_FILE", "/does/not/exist", "readable file"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.name, c.value)
			_, err := loadPrimary()
			if err == nil {
				t.Fatalf("load with %s=%q: got no error", c.name, c.value)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not contain %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error has more than one line: %q", err)
			}
		})
	}
}

func TestAReplicaMustNameItsPrimaries(t *testing.T) {
	for name, value := range map[string]string{
		"not at all": "", "by something that is no URL": "primary:8053", "without putting a password into the URL": "https://u:p@primary",
	} {
		t.Run(name, func(t *testing.T) {
			if value != "" {
				t.Setenv("DNSFLEET_PRIMARY_URLS", value)
			}
			_, err := loadReplica()
			if err == nil || !strings.Contains(err.Error(), "DNSFLEET_PRIMARY_URLS") {
				t.Errorf("got %v, want an error that names DNSFLEET_PRIMARY_URLS", err)
			}
		})
	}
}

func TestASecretNeverPrints(t *testing.T) {
	const value = "hunter2"
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DNSFLEET_ADMIN_PASSWORD", "")
	t.Setenv("DNSFLEET_ADMIN_PASSWORD_FILE", file)
	cfg, err := loadPrimary()
	if err != nil {
		t.Fatal(err)
	}
	if string(cfg.AdminPassword) != value {
		t.Errorf("got %q from the file, want %q", string(cfg.AdminPassword), value)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, cfg); strings.Contains(text, value) {
			t.Errorf("%s prints the secret: %s", format, text)
		}
	}
}

func TestUnknownVariablesAreNamed(t *testing.T) {
	got := unknownVariables([]string{"DNSFLEET_DNS_LISTNE=:53", "DNSFLEET_ADMIN_PASSWORD_FILE=/x", "HOME=/"}, primaryConfig{})
	if len(got) != 1 || got[0] != "DNSFLEET_DNS_LISTNE" {
		t.Errorf("got %q, want only DNSFLEET_DNS_LISTNE", got)
	}
}
