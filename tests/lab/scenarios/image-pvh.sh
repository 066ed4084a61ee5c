# The service VM of image-storage as a PVH domain: a guest reads what it wrote, and xl shutdown ends the VM in order.
limit=260
draft="the PVH image was seen to become ready; its guest was not seen to its end yet"

. /lab/scenarios/image-storage.sh
storage_cfg="$storage_cfg
type='pvh'"
