package question

import "bytes"

// CutName takes the first of several names as they travel.
func CutName(names []byte) (name, rest []byte) {
	end := 0
	for names[end] != 0 {
		end += 1 + int(names[end])
	}
	return names[:end+1], names[end+1:]
}

// AppendName appends a normalized name as it travels.
func AppendName[text string | []byte](b []byte, name text) []byte {
	start := len(b)
	b = append(append(b, 0), name...)
	for i := start + 1; i < len(b); i++ {
		if b[i] == '.' {
			b[start] = byte(i - start - 1)
			start = i
		}
	}
	b[start] = byte(len(b) - start - 1)
	if len(name) == 0 {
		return b
	}
	return append(b, 0)
}

// NameText writes a name of a rule, "" for the root.
func NameText(wire []byte) string {
	text := bytes.Clone(wire[1:max(len(wire)-1, 1)])
	for at := int(wire[0]); at < len(text); at += 1 + int(wire[1+at]) {
		text[at] = '.'
	}
	return string(text)
}
