"""Rule 7 where it takes more than neighbours: values followed from row to row to what they end as."""
