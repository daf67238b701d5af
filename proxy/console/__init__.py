"""The console: one web page on the admin listener, and the JSON it is made of."""
