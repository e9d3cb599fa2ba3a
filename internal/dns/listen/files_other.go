//go:build !unix

package listen

// maxFiles is how many descriptors the process may have, 0 if that is not known.
func maxFiles() int { return 0 }
