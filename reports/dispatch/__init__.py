"""Who a case is sent to: rules, and what comes of them."""
