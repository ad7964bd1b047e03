"""SQL, by what it is about. Every query carries the merchant; transitions name the state they come from."""
