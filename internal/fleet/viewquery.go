package fleet

// Limits on ViewQuery.Limit.
const (
	DefaultViewLimit = 500
	MaxViewLimit     = 10_000
)

// ViewQuery says which part of the view is asked for. Its zero value is the first page of everything. Coverage and
// totals stand for the whole fleet whatever it says.
type ViewQuery struct {
	Status []Status // only rows with one of these; empty = all
	Fields []string // JSON names of the row's fields to tell; empty = all. instance_id and name are always told
	Limit  int      // replicas on a page; 0 = DefaultViewLimit
	Cursor string   // View.Next of the page before; "" = the first page
}
