"""Which machine image a wish means now."""

from controlplane.cloud.calls import Calls
from controlplane.cloud.errors import named


async def image_id(calls: Calls, wish: str) -> str:
    """An AMI id as it is; "/..." by the SSM parameter of that name, as AWS publishes its newest images; anything else
    as a name pattern (`al2023-ami-2023.*-x86_64`) among Amazon's images, the newest. CLOUD_INVALID when there is none.
    """
    if wish.startswith("ami-"):
        return wish
    if wish.startswith("/"):
        return await calls.parameter(wish)
    filters = [{"Name": "name", "Values": [wish]}, {"Name": "state", "Values": ["available"]}]
    images = await calls.pages("describe_images", "Images", Owners=["amazon"], Filters=filters)
    if not images:
        raise named("InvalidAMIID.NotFound", "DescribeImages", calls.region, f"no image of Amazon is named {wish}")
    newest = max(images, key=lambda image: (str(image["CreationDate"]), str(image["Name"])))
    return str(newest["ImageId"])
