"""Operations carried out by the real engine, on a simulated fleet and the EC2 sandbox."""
