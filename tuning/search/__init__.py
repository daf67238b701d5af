"""`breakwater tune`: the policies that recorded scores and measured costs leave open, weighed."""
