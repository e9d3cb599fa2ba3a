package docs_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// documents are the texts that people follow, by their path from the root of the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../README.md", "../CONTRIBUTING.md", "../CHANGELOG.md", "*.md", "../deploy/*.sh", "../deploy/systemd/*", "../docker-compose.yml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: found %d files, error %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(content)
		}
	}
	return texts
}

// block is a fenced code block of Markdown, span a piece of code in a line.
var (
	block = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	span  = regexp.MustCompile("`[^`\n]+`")
)

// code is what of a Markdown text is to be typed, each piece on a line of its own.
func code(text string) string {
	pieces := block.FindAllString(text, -1)
	pieces = append(pieces, span.FindAllString(block.ReplaceAllString(text, ""), -1)...)
	return strings.ReplaceAll(strings.Join(pieces, "\n"), "`", "")
}

func whole(text string) string { return text }

// mentions calls check once for each text that the first group of pattern matches in the part of a document that is
// asked for. The pattern must match somewhere.
func mentions(t *testing.T, part func(string) string, pattern string, check func(path, mention string)) {
	t.Helper()
	seen := map[string]bool{}
	for path, text := range documents(t) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(part(text), -1) {
			if key := path + "\x00" + m[1]; !seen[key] {
				seen[key] = true
				check(path, m[1])
			}
		}
	}
	if len(seen) == 0 {
		t.Errorf("no document matches %q", pattern)
	}
}

func TestEveryMakeTargetThatIsNamedExists(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, code, `(?m)^ *make ([a-z][a-z0-9-]*)`, func(path, target string) {
		if !bytes.Contains(makefile, []byte("\n"+target+":")) {
			t.Errorf("%s names `make %s`, which the Makefile does not have", path, target)
		}
	})
}

func TestEveryCommandThatIsNamedExists(t *testing.T) {
	usage := run(t, "help")
	mentions(t, code, `(?m)(?:^|[ (]|\./cmd/)dnsfleet ([a-z]+)`, func(path, command string) {
		if !strings.Contains(usage, "\n  dnsfleet "+command+" ") {
			t.Errorf("%s names `dnsfleet %s`, which is no command:\n%s", path, command, usage)
		}
	})
}

func TestEveryDemoFlagThatIsNamedExists(t *testing.T) {
	usage := run(t, "demo", "-h")
	mentions(t, code, `dnsfleet demo((?: --[a-z-]+ \S+)+)`, func(path, flags string) {
		for _, flag := range regexp.MustCompile(`-(-[a-z-]+) `).FindAllStringSubmatch(flags, -1) {
			if !strings.Contains(usage, "\n  "+flag[1]+" ") {
				t.Errorf("%s names the flag -%s of the demo, which it does not have:\n%s", path, flag[1], usage)
			}
		}
	})
}

func TestEveryVariableThatIsNamedExists(t *testing.T) {
	example, err := os.ReadFile("../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, whole, `(DNSFLEET_[A-Z0-9_]*[A-Z0-9])`, func(path, name string) {
		if !bytes.Contains(example, []byte("\n"+name+"=")) {
			t.Errorf("%s names %s, which .env.example does not list", path, name)
		}
	})
}

func TestEveryLinkToAFileLeadsThere(t *testing.T) {
	mentions(t, whole, `\]\(([^)#:]+)(?:#[^)]*)?\)`, func(path, link string) {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), link)); err != nil {
			t.Errorf("%s links to %s: %v", path, link, err)
		}
	})
}

// The map in CONTRIBUTING.md is what a newcomer trusts: it names every directory below internal.
func TestTheMapNamesEveryPackage(t *testing.T) {
	contributing, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	packages, err := fs.Glob(os.DirFS(".."), "internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range packages {
		packages[i] = filepath.Dir(file)
	}
	for _, dir := range slices.Compact(packages) {
		named := bytes.Contains(contributing, []byte(dir+"/")) || strings.HasPrefix(dir, "internal/http")
		if !named {
			t.Errorf("CONTRIBUTING.md does not name %s", dir)
		}
	}
}

// program is where the program under test is built to.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "dnsfleet-docs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "dnsfleet")
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// build builds it, once and only if a test wants it.
var build = sync.OnceValue(func() error {
	command := exec.Command("go", "build", "-o", program, "./cmd/dnsfleet")
	command.Dir = ".."
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
})

// run is what the program prints for args.
func run(t *testing.T, args ...string) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("dnsfleet %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
