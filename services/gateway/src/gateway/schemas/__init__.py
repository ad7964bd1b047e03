"""The JSON contract: what is decoded strictly, what is answered, and the source of the OpenAPI document."""
