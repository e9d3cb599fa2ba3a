package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// writeEnvExample writes .env.example: every variable with its default and one line of what it does.
func writeEnvExample(w io.Writer) {
	fmt.Fprint(w, `# Every variable of dnsfleet with its default. Copy what you change into your environment or env file.
# A secret NAME may also be given as a file: NAME_FILE=/path. Durations are written 60s, 15m, 24h.
`)
	sections := []struct {
		title string
		cfg   any
	}{
		{"Every instance", instanceConfig{}},
		{"dnsfleet primary", primaryConfig{}},
		{"dnsfleet replica", replicaConfig{}},
	}
	written := map[string]bool{}
	for _, s := range sections {
		fmt.Fprintf(w, "\n# --- %s ---\n", s.title)
		for field := range variables(reflect.TypeOf(s.cfg)) {
			name := field.Tag.Get("envconfig")
			if written[name] {
				continue
			}
			written[name] = true
			desc := field.Tag.Get("desc")
			fmt.Fprintf(w, "\n# %s%s\n%s=%s\n", strings.ToUpper(desc[:1]), desc[1:], name, field.Tag.Get("default"))
			if field.Type == reflect.TypeFor[secret]() {
				fmt.Fprintf(w, "%s_FILE=\n", name)
			}
		}
	}
}

// writeConfig writes a configuration as env file lines, secrets redacted, for --check.
func writeConfig(w io.Writer, cfg any) error {
	v := reflect.ValueOf(cfg)
	for field, index := range variables(v.Type()) {
		value := v.FieldByIndex(index)
		text := fmt.Sprint(value.Interface())
		if value.Kind() == reflect.Slice {
			var parts []string
			for i := range value.Len() {
				parts = append(parts, fmt.Sprint(value.Index(i).Interface()))
			}
			text = strings.Join(parts, ",")
		}
		if text == "" && field.Tag.Get("default") != "" {
			text = "off" // only listeners can be without a value although they have a default
		}
		if _, err := fmt.Fprintf(w, "%s=%s\n", field.Tag.Get("envconfig"), text); err != nil {
			return err
		}
	}
	return nil
}
