package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A sleep in a test is either too short or too long, unless the clock is synctest's. No linter sees the difference.
// A bubble may be made by a helper in another file, so what counts is that the package has one.
func TestOnlyTestsOfPackagesThatUseSynctestSleep(t *testing.T) {
	files := 0
	sleeps := map[string][]string{} // by directory
	bubbles := map[string]bool{}    // by directory
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || (len(entry.Name()) > 2 && entry.Name()[0] == '.')):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		bubbles[dir] = bubbles[dir] || imports(file, "testing/synctest")
		for _, sleep := range calls(file, "time", "Sleep") {
			sleeps[dir] = append(sleeps[dir], positions.Position(sleep).String())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, places := range sleeps {
		for _, place := range places {
			if !bubbles[dir] {
				t.Errorf("%s: time.Sleep on the real clock: wait for the condition instead", place)
			}
		}
	}
	if files < 10 {
		t.Errorf("looked at %d test files, want all of them", files)
	}
}

func imports(file *ast.File, path string) bool {
	return slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"`+path+`"` })
}

// calls are the places where file calls pkg.name.
func calls(file *ast.File, pkg, name string) []token.Pos {
	var found []token.Pos
	ast.Inspect(file, func(n ast.Node) bool {
		call, isCall := n.(*ast.CallExpr)
		if !isCall {
			return true
		}
		if selector, ok := call.Fun.(*ast.SelectorExpr); ok && selector.Sel.Name == name {
			if ident, ok := selector.X.(*ast.Ident); ok && ident.Name == pkg {
				found = append(found, call.Pos())
			}
		}
		return true
	})
	return found
}
