package upstream

// Looping reports whether Start uses the loop.
func (p *Pool) Looping() bool { return p.loop.Running() }
