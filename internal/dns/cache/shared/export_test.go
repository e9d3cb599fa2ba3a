package shared

// Running tells tests that Run has begun.
func (c *Cache) Running() bool { return c.running.Load() }
