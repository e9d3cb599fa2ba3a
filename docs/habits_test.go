package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// A sleep in a test is either too short or too long, unless the clock is synctest's. No linter sees the difference.
func TestTestsSleepOnlyInSynctestBubbles(t *testing.T) {
	files := 0
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
		for _, sleep := range sleepsOutsideBubbles(file) {
			t.Errorf("%s: time.Sleep outside a synctest bubble: wait for the condition instead", positions.Position(sleep))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("looked at %d test files, want all of them", files)
	}
}

// sleepsOutsideBubbles are the calls of time.Sleep that stand in no argument of synctest.Test.
func sleepsOutsideBubbles(file *ast.File) []token.Pos {
	var found []token.Pos
	ast.Inspect(file, func(n ast.Node) bool {
		call, isCall := n.(*ast.CallExpr)
		switch {
		case !isCall:
		case isSelector(call.Fun, "synctest", "Test"):
			return false
		case isSelector(call.Fun, "time", "Sleep"):
			found = append(found, call.Pos())
		}
		return true
	})
	return found
}

func isSelector(e ast.Expr, pkg, name string) bool {
	selector, ok := e.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	ident, ok := selector.X.(*ast.Ident)
	return ok && ident.Name == pkg
}
