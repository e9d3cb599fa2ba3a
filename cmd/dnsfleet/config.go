package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"dnsfleet/internal/fleet"
)

// Every variable stands here with its full name, so that a search for it finds its place. Besides envconfig's tags a
// field may have min and max (for durations), oneof (for words) and desc (its line in .env.example). A secret may also
// be given as a file, named by the variable with _FILE behind it.

// instanceConfig is what every instance needs.
type instanceConfig struct {
	InstanceID   string        `envconfig:"DNSFLEET_INSTANCE_ID" desc:"public id, [A-Za-z0-9._-]{1,64}; empty = made once and kept in the data dir"`
	InstanceName string        `envconfig:"DNSFLEET_INSTANCE_NAME" desc:"what people read; empty = the host name"`
	DataDir      string        `envconfig:"DNSFLEET_DATA_DIR" default:"./data" desc:"slices, spool, last good lists and policy, embedded store and query log"`
	LogLevel     string        `envconfig:"DNSFLEET_LOG_LEVEL" default:"info" oneof:"debug info warn error" desc:"debug, info, warn or error"`
	LogFormat    string        `envconfig:"DNSFLEET_LOG_FORMAT" default:"text" oneof:"text json" desc:"text or json"`
	DNSListen    listenList    `envconfig:"DNSFLEET_DNS_LISTEN" default:":53" desc:"comma list of [host]:port for UDP and TCP; off = answer no DNS"`
	DoTListen    listenList    `envconfig:"DNSFLEET_DOT_LISTEN" default:"off" desc:"comma list of [host]:port for DNS over TLS, usually :853; off = none"`
	DoHListen    listenList    `envconfig:"DNSFLEET_DOH_LISTEN" default:"off" desc:"comma list of [host]:port for DNS over HTTPS (/dns-query), usually :443; off = none"`
	TLSCertFile  string        `envconfig:"DNSFLEET_TLS_CERT_FILE" desc:"certificate chain (PEM) for DNS over TLS and HTTPS; reloaded when it changes"`
	TLSKeyFile   string        `envconfig:"DNSFLEET_TLS_KEY_FILE" desc:"its private key (PEM)"`
	AllowClients prefixList    `envconfig:"DNSFLEET_ALLOW_CLIENTS" desc:"comma list of prefixes that are answered; empty = loopback, private, link-local, CGNAT and ULA"`
	CacheRedis   secret        `envconfig:"DNSFLEET_CACHE_REDIS_URL" desc:"Redis in which instances share cached answers, in the forms of DNSFLEET_STORE_URL; empty = each keeps its own only"`
	BootstrapDNS addrList      `envconfig:"DNSFLEET_BOOTSTRAP_DNS" desc:"comma list of IP or IP:port that resolve the instance's own needs; empty = the system's resolver"`
	Control      listenAddr    `envconfig:"DNSFLEET_CONTROL_LISTEN" default:"127.0.0.1:8081" desc:"control API; off = none"`
	ControlToken secret        `envconfig:"DNSFLEET_CONTROL_TOKEN" desc:"bearer token of the control API; required off loopback"`
	WebListen    listenAddr    `envconfig:"DNSFLEET_WEB_LISTEN" default:"127.0.0.1:8053" desc:"primary: web API, dashboard, sync API, /metrics, /healthz, /readyz; replica: the last three; off = none"`
	WebCertFile  string        `envconfig:"DNSFLEET_WEB_TLS_CERT_FILE" desc:"certificate chain (PEM) for HTTPS on the web and sync listeners; reloaded when it changes"`
	WebKeyFile   string        `envconfig:"DNSFLEET_WEB_TLS_KEY_FILE" desc:"its private key (PEM)"`
	StatsEvery   time.Duration `envconfig:"DNSFLEET_STATS_INTERVAL" default:"10s" min:"1s" max:"1h" desc:"how often the instance reports (1s to 1h)"`

	QueryLogURL       secret        `envconfig:"DNSFLEET_QUERYLOG_URL" desc:"where each query is kept: clickhouse:// (native), clickhouse+http://, clickhouse+https://, sqlite://, off, or on a replica primary (sent over the sync API); empty = SQLite in the data dir on a primary, primary on a replica"`
	QueryLogRetention time.Duration `envconfig:"DNSFLEET_QUERYLOG_RETENTION" default:"168h" min:"1h" max:"87600h" desc:"how long queries are kept (1h to 87600h)"`
	Privacy           string        `envconfig:"DNSFLEET_PRIVACY" default:"full" oneof:"full hash truncate anonymous" desc:"what is kept of a client: full, hash (a pseudonym), truncate (its /24 or /48) or anonymous (nothing)"`
	ClickHouseCluster string        `envconfig:"DNSFLEET_CLICKHOUSE_CLUSTER" desc:"name of the ClickHouse cluster whose replicated and distributed tables keep the log; empty = one server"`
	Migrate           string        `envconfig:"DNSFLEET_MIGRATE" default:"auto" oneof:"auto off" desc:"auto: every start brings the schema of SQLite and ClickHouse up to date; off: only dnsfleet migrate does"`
}

// primaryConfig is the environment of `dnsfleet primary`.
type primaryConfig struct {
	instanceConfig
	SyncListen    listenAddr    `envconfig:"DNSFLEET_SYNC_LISTEN" desc:"a listener of its own for /sync/*; empty = with the web"`
	AdminPassword secret        `envconfig:"DNSFLEET_ADMIN_PASSWORD" desc:"dashboard password; empty: open on loopback, elsewhere one is made at first start and printed once"`
	StoreURL      secret        `envconfig:"DNSFLEET_STORE_URL" desc:"redis://, rediss://, redis+sentinel://, redis+cluster:// or sqlite://; empty = SQLite in the data dir"`
	StorePrefix   string        `envconfig:"DNSFLEET_STORE_PREFIX" default:"dnsfleet" desc:"key prefix, so that fleets can share a Redis"`
	StatsTTL      time.Duration `envconfig:"DNSFLEET_STATS_TTL" default:"15m" min:"5s" max:"24h" desc:"how long a report counts without a newer one (5s to 24h)"`
	History       string        `envconfig:"DNSFLEET_HISTORY" default:"24h" oneof:"off 24h 90d" desc:"how far back slices are kept in the store: off, 24h or 90d"`
	PolicyFile    string        `envconfig:"DNSFLEET_POLICY_FILE" desc:"YAML seed of the policy, used when the store has none; empty = Quad9 and one well-known list"`
}

// replicaConfig is the environment of `dnsfleet replica`.
type replicaConfig struct {
	instanceConfig
	PrimaryURLs urlList       `envconfig:"DNSFLEET_PRIMARY_URLS" required:"true" desc:"comma list of the primaries' sync URLs, tried in order (required)"`
	SyncToken   secret        `envconfig:"DNSFLEET_SYNC_TOKEN" desc:"the replica's token, from: dnsfleet token create (required)"`
	SyncCAFile  string        `envconfig:"DNSFLEET_SYNC_CA_FILE" desc:"CA certificates (PEM) that the primaries' HTTPS is checked against; empty = the system's"`
	SyncEvery   time.Duration `envconfig:"DNSFLEET_SYNC_INTERVAL" default:"60s" min:"1s" max:"24h" desc:"policy poll where waiting for news is not possible (1s to 24h)"`
	ControlURL  string        `envconfig:"DNSFLEET_CONTROL_URL" desc:"where a primary may reach this replica's control API; told to it with each report"`
}

// errConfig marks errors that are the operator's to mend: main prints them as they are.
var errConfig = errors.New("configuration")

func loadInstance() (c instanceConfig, err error) { return c, load(&c) }

func loadPrimary() (c primaryConfig, err error) { return c, load(&c.instanceConfig, &c) }

func loadReplica() (c replicaConfig, err error) { return c, load(&c.instanceConfig, &c) }

// load reads configs, pointers to the structs above, from the environment. An embedded struct stands before the one that
// embeds it, because envconfig passes over what is embedded and not exported.
func load(cfgs ...any) error {
	for _, cfg := range cfgs {
		t := reflect.TypeOf(cfg).Elem()
		if err := unsetEmpty(t); err != nil {
			return err
		}
		if err := readSecretFiles(t); err != nil {
			return err
		}
		if err := envconfig.Process("", cfg); err != nil {
			return fmt.Errorf("%w: %s", errConfig, explain(err, cfg))
		}
		if err := checkTags(reflect.ValueOf(cfg).Elem()); err != nil {
			return err
		}
	}
	return nil
}

// unsetEmpty makes a variable that is set to nothing mean its default, as an untouched line of an env file does.
func unsetEmpty(t reflect.Type) error {
	for field := range variables(t) {
		if name := field.Tag.Get("envconfig"); os.Getenv(name) == "" {
			if err := os.Unsetenv(name); err != nil {
				return fmt.Errorf("unset %s: %w", name, err)
			}
		}
	}
	return nil
}

// explain turns envconfig's error into one line that names the variable, the value and what is allowed.
func explain(err error, cfg any) string {
	var parse *envconfig.ParseError
	if !errors.As(err, &parse) {
		if name, missing := strings.CutSuffix(err.Error(), " missing value"); missing {
			return strings.TrimPrefix(name, "required key ") + "=\"\": must be set"
		}
		return err.Error()
	}
	value := fmt.Sprintf("%q", parse.Value)
	for field := range variables(reflect.TypeOf(cfg).Elem()) {
		if field.Tag.Get("envconfig") == parse.KeyName && field.Type == reflect.TypeFor[secret]() {
			value = redacted
		}
	}
	why := parse.Err.Error()
	if parse.TypeName == "time.Duration" {
		why = "must be a duration such as 60s"
	}
	return fmt.Sprintf("%s=%s: %s", parse.KeyName, value, why)
}

// variables yields the fields of a config struct, those of embedded ones first.
func variables(t reflect.Type) func(yield func(reflect.StructField, []int) bool) {
	return func(yield func(reflect.StructField, []int) bool) {
		for _, f := range reflect.VisibleFields(t) {
			if f.Tag.Get("envconfig") != "" && !yield(f, f.Index) {
				return
			}
		}
	}
}

// readSecretFiles puts the content of each X_FILE into X, for the variables X that are secrets.
func readSecretFiles(t reflect.Type) error {
	for field := range variables(t) {
		if field.Type != reflect.TypeFor[secret]() {
			continue
		}
		name := field.Tag.Get("envconfig")
		path, given := os.LookupEnv(name + "_FILE")
		if !given || path == "" {
			continue
		}
		if os.Getenv(name) != "" {
			return fmt.Errorf("%w: %s and %s_FILE are both set: give one of them", errConfig, name, name)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%w: %s_FILE=%q: must be a readable file: %w", errConfig, name, path, err)
		}
		if err := os.Setenv(name, strings.TrimRight(string(content), "\r\n")); err != nil {
			return fmt.Errorf("%w: %s_FILE=%q: must hold text: %w", errConfig, name, path, err)
		}
	}
	return nil
}

// checkTags holds the values to the min, max and oneof of their fields.
func checkTags(v reflect.Value) error {
	for field, index := range variables(v.Type()) {
		name, value := field.Tag.Get("envconfig"), v.FieldByIndex(index)
		if words := strings.Fields(field.Tag.Get("oneof")); len(words) > 0 && !slices.Contains(words, value.String()) {
			return fmt.Errorf("%w: %s=%q: must be one of %s", errConfig, name, value.String(), strings.Join(words, ", "))
		}
		lowest, highest := field.Tag.Get("min"), field.Tag.Get("max")
		if lowest == "" {
			continue
		}
		d := time.Duration(value.Int())
		low, errLow := time.ParseDuration(lowest)
		high, errHigh := time.ParseDuration(highest)
		if err := errors.Join(errLow, errHigh); err != nil {
			return err
		}
		if d < low || d > high {
			return fmt.Errorf("%w: %s=%q: must lie between %s and %s", errConfig, name, d, lowest, highest)
		}
	}
	return nil
}

// unknownVariables names the DNSFLEET_ variables of the environment that no config struct has. They are a warning and
// not an error, because container platforms add variables of that form on their own.
func unknownVariables(environ []string, cfgs ...any) []string {
	known := map[string]bool{}
	for _, cfg := range cfgs {
		for field := range variables(reflect.TypeOf(cfg)) {
			known[field.Tag.Get("envconfig")] = true
			if field.Type == reflect.TypeFor[secret]() {
				known[field.Tag.Get("envconfig")+"_FILE"] = true
			}
		}
	}
	var unknown []string
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "DNSFLEET_") && !known[name] {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// complete fills in what an instance makes for itself: its id, its name and its data directory.
func (c *instanceConfig) complete() error {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("%w: DNSFLEET_DATA_DIR=%q: must be a directory that can be written: %w", errConfig, c.DataDir, err)
	}
	if c.InstanceName == "" {
		host, err := os.Hostname()
		if err != nil || host == "" {
			host = "dnsfleet"
		}
		c.InstanceName = host
	}
	if err := fleet.ValidName(c.InstanceName); err != nil {
		return fmt.Errorf("%w: DNSFLEET_INSTANCE_NAME=%q: must be 1 to 128 bytes of printable UTF-8", errConfig, c.InstanceName)
	}
	if c.InstanceID == "" {
		id, err := keptID(filepath.Join(c.DataDir, "instance_id"))
		if err != nil {
			return err
		}
		c.InstanceID = id
	}
	if !fleet.ValidID(c.InstanceID) {
		return fmt.Errorf("%w: DNSFLEET_INSTANCE_ID=%q: must match [A-Za-z0-9._-]{1,64}", errConfig, c.InstanceID)
	}
	if (c.WebCertFile == "") != (c.WebKeyFile == "") {
		return fmt.Errorf("%w: DNSFLEET_WEB_TLS_CERT_FILE and DNSFLEET_WEB_TLS_KEY_FILE go together", errConfig)
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		return fmt.Errorf("%w: DNSFLEET_TLS_CERT_FILE and DNSFLEET_TLS_KEY_FILE go together", errConfig)
	}
	if len(c.DoTListen)+len(c.DoHListen) > 0 && c.TLSCertFile == "" {
		return fmt.Errorf("%w: DNSFLEET_TLS_CERT_FILE=\"\": must be set because DNSFLEET_DOT_LISTEN or DNSFLEET_DOH_LISTEN is", errConfig)
	}
	if c.ControlToken == "" && !c.Control.loopback() {
		return fmt.Errorf("%w: DNSFLEET_CONTROL_TOKEN=\"\": must be set because DNSFLEET_CONTROL_LISTEN=%q is not on loopback", errConfig, c.Control)
	}
	return nil
}

// keptID reads the instance's id from path, or makes one and keeps it there.
func keptID(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(content)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read instance id: %w", err)
	}
	id := fleet.RandomID()
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep instance id: %w", err)
	}
	return id, nil
}
