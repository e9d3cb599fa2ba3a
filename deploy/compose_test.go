package deploy_test

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// project is docker-compose.yml as Compose understands it, with nothing set in the environment.
func project(t *testing.T) *types.Project {
	t.Helper()
	content, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  "..",
		ConfigFiles: []types.ConfigFile{{Filename: "docker-compose.yml", Content: content}},
		Environment: types.Mapping{},
	})
	if err != nil {
		t.Fatalf("load docker-compose.yml: %v", err)
	}
	return p
}

// byCommand are the services that run the given role, by name.
func byCommand(p *types.Project, role string) []types.ServiceConfig {
	var found []types.ServiceConfig
	for _, name := range slices.Sorted(slices.Values(p.ServiceNames())) {
		if s := p.Services[name]; slices.Equal(s.Command, []string{role}) {
			found = append(found, s)
		}
	}
	return found
}

func instances(p *types.Project) []types.ServiceConfig {
	return append(byCommand(p, "primary"), byCommand(p, "replica")...)
}

// variable is a line of .env.example: NAME=default, or # NAME= where there is no default.
var variable = regexp.MustCompile(`(?m)^(?:# ?)?(DNSFLEET_[A-Z0-9_]+)=`)

func TestEveryVariableIsListedInTheEnvExample(t *testing.T) {
	example, err := os.ReadFile("../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, match := range variable.FindAllStringSubmatch(string(example), -1) {
		known[match[1]] = true
	}
	checked := 0
	for _, s := range project(t).Services {
		for name := range s.Environment {
			if !strings.HasPrefix(name, "DNSFLEET_") {
				continue
			}
			checked++
			// A secret's file variable need not be listed by itself.
			if !known[name] && !known[strings.TrimSuffix(name, "_FILE")] {
				t.Errorf("%s sets %s, which .env.example does not list", s.Name, name)
			}
		}
	}
	if checked < 15 {
		t.Errorf("checked %d variables, want those of five instances", checked)
	}
}

func TestTwoPrimariesShareOneNameAndThreeReplicasKnowBoth(t *testing.T) {
	p := project(t)
	primaries, replicas := byCommand(p, "primary"), byCommand(p, "replica")
	if len(primaries) != 2 || len(replicas) != 3 {
		t.Fatalf("got %d primaries and %d replicas, want 2 and 3", len(primaries), len(replicas))
	}
	for _, s := range primaries {
		if network := s.Networks["fleet"]; network == nil || !slices.Contains(network.Aliases, "primary") {
			t.Errorf("%s has no alias primary on the fleet network", s.Name)
		}
		if got, want := value(s, "DNSFLEET_STORE_URL"), "redis://redis:6379/0"; got != want {
			t.Errorf("%s stores in %q, want %q: primaries see one fleet only through one Redis", s.Name, got, want)
		}
	}
	for _, s := range replicas {
		for _, primary := range primaries {
			if urls := value(s, "DNSFLEET_PRIMARY_URLS"); !strings.Contains(urls, "http://"+primary.Name+":8053") {
				t.Errorf("%s follows %q, want %s among them", s.Name, urls, primary.Name)
			}
		}
		if _, reachable := s.Networks["store"]; reachable {
			t.Errorf("%s is on the store network, want only primaries there", s.Name)
		}
	}
}

func TestRedisKeepsWhatItIsTold(t *testing.T) {
	redis := project(t).Services["redis"]
	for flag, want := range map[string]string{"--appendonly": "yes", "--appendfsync": "everysec", "--maxmemory-policy": "noeviction"} {
		at := slices.Index(redis.Command, flag)
		if at < 0 || at+1 == len(redis.Command) || redis.Command[at+1] != want {
			t.Errorf("redis runs with %q, want %s %s", redis.Command, flag, want)
		}
	}
	if !mounts(redis, "/data") {
		t.Error("redis has no volume for /data: its append-only file would go with the container")
	}
}

func TestEveryServiceComesBackAndSaysHowItIs(t *testing.T) {
	p := project(t)
	for _, s := range p.Services {
		if s.HealthCheck == nil || s.HealthCheck.Disable {
			t.Errorf("%s has no health check", s.Name)
		}
		if s.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("%s restarts %q, want %q", s.Name, s.Restart, types.RestartPolicyUnlessStopped)
		}
		if _, tag, pinned := strings.Cut(path.Base(s.Image), ":"); s.Build == nil && (!pinned || tag == "latest") {
			t.Errorf("%s uses %s, want a pinned image", s.Name, s.Image)
		}
	}
	if _, ok := p.Services["clickhouse"]; !ok {
		t.Error("there is no clickhouse service")
	}
}

func TestInstancesAreThemselvesAndKeepTheirData(t *testing.T) {
	ids, volumes := map[string]string{}, map[string]string{}
	for _, s := range instances(project(t)) {
		id := value(s, "DNSFLEET_INSTANCE_ID")
		if other, taken := ids[id]; taken || id == "" {
			t.Errorf("%s has the instance id %q, want one of its own (%s has it too)", s.Name, id, other)
		}
		ids[id] = s.Name
		if !mounts(s, "/var/lib/dnsfleet") {
			t.Errorf("%s has no volume for its data directory", s.Name)
		}
		for _, v := range s.Volumes {
			if other, taken := volumes[v.Source]; taken {
				t.Errorf("%s and %s share the volume %s", s.Name, other, v.Source)
			}
			volumes[v.Source] = s.Name
		}
	}
}

func TestNothingIsOpenToTheNetworkAndNoSecretStandsInTheFile(t *testing.T) {
	p := project(t)
	for _, s := range p.Services {
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %q, want 127.0.0.1", s.Name, port.Published, port.HostIP)
			}
		}
		for name := range s.Environment {
			if secret := regexp.MustCompile(`(PASSWORD|TOKEN|SECRET)$`); secret.MatchString(name) {
				t.Errorf("%s sets %s in the file, want %s_FILE", s.Name, name, name)
			}
			if file := value(s, name); strings.HasSuffix(name, "_FILE") && !granted(s, path.Base(file)) {
				t.Errorf("%s reads %s, which is no secret of it", s.Name, file)
			}
		}
	}
	for _, s := range instances(p) {
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may write to its image, keep capabilities or gain new ones", s.Name)
		}
		// Without new privileges the file capability of the binary is ignored.
		if s.Sysctls["net.ipv4.ip_unprivileged_port_start"] != "0" {
			t.Errorf("%s may not bind port 53", s.Name)
		}
	}
	for _, name := range []string{"redis", "clickhouse"} {
		if networks := p.Services[name].Networks; len(networks) != 1 || !p.Networks["store"].Internal {
			t.Errorf("%s is on the networks %v, want only the internal one", name, networks)
		}
	}
}

func value(s types.ServiceConfig, name string) string {
	if v := s.Environment[name]; v != nil {
		return *v
	}
	return ""
}

func mounts(s types.ServiceConfig, target string) bool {
	return slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Type == types.VolumeTypeVolume && v.Source != "" && v.Target == target
	})
}

func granted(s types.ServiceConfig, secret string) bool {
	return slices.ContainsFunc(s.Secrets, func(c types.ServiceSecretConfig) bool { return c.Source == secret })
}
